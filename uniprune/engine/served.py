"""Attention kernels, KV caches and ways to run a forward that the engine serves; all others are refused by name."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch.torch_version import TorchVersion
from transformers import DynamicCache, QuantizedCache, StaticCache

from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import ModelAdapter

KERNELS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
"""Kernels of the decoder's attention; of those with windows or blocks see `layer_kinds.MASKED`."""
CACHES = (DynamicCache, StaticCache, QuantizedCache)
"""KV caches that hold the tokens of every layer in the order in which they came; without subclasses."""
OFFLOADING = "5.20"
"""Release of transformers from which a copy of keys back to the GPU waits for the copy to the CPU that is under way."""


def check_kernel(adapter: ModelAdapter) -> None:
    """Refuse attention kernels that were not tried.

    Raises:
        UnsupportedError: naming the kernel.
    """
    kernel = adapter.decoder.config._attn_implementation
    if kernel not in KERNELS:
        raise UnsupportedError(
            f"attn_implementation={kernel!r} of the language model was not tried with pruned prompts; load the model "
            f"with one of {', '.join(KERNELS)}"
        )


def check_cache(adapter: ModelAdapter, cache: Any) -> None:
    """Refuse caches of unknown classes, offloaded ones that may lose keys, and static ones that `generate` compiles.

    Raises:
        UnsupportedError: naming the cache, and what to pass instead.
    """
    if cache is not None and type(cache) not in CACHES:
        raise UnsupportedError(
            f"a KV cache of class {type(cache).__name__} was not tried with pruned prompts; leave it out, or pass one "
            f"of {', '.join(known.__name__ for known in CACHES)}"
        )
    if cache is not None and cache.offloading:
        check_offloading(type(cache))
    # `generate` makes the compiled call before the prefill, and the graphs of earlier calls outlive it.
    if type(cache) is StaticCache and hasattr(adapter.model, "_compiled_call"):
        raise UnsupportedError(
            "generate compiles the decode steps of a StaticCache, and torch.compile runs graphs of earlier calls "
            "without the hooks that prune; pass disable_compile=True (after `del model._compiled_call`, where an "
            "earlier call has compiled them), or leave out cache_implementation"
        )


def check_offloading(kind: type, release: str = transformers.__version__) -> None:
    """Refuse offloading but of a DynamicCache, by a release of transformers whose streams wait for each other.

    Args:
        kind: class of the cache.
        release: of transformers.

    Raises:
        UnsupportedError: naming the class and the release.
    """
    if kind is not DynamicCache or TorchVersion(release) < OFFLOADING:
        raise UnsupportedError(
            f"an offloaded {kind.__name__} of transformers {release} was not tried, or gives wrong answers: releases "
            f"before {OFFLOADING} copy keys back to the GPU before they have left it; pass an offloaded DynamicCache "
            f"with transformers {OFFLOADING} or newer, or leave out cache_implementation"
        )


def check_untraced() -> None:
    """Refuse to run inside a function that torch.compile is compiling.

    Raises:
        UnsupportedError: it would keep what the hooks do for this prompt.
    """
    if torch.compiler.is_compiling():
        _refuse_tracing()


@torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's annotations have gaps
def _refuse_tracing() -> None:
    """Raise; outside of the compiler, which would catch the error and run the forward in another way."""
    raise UnsupportedError(
        "the model is called inside a function compiled by torch.compile, whose graph would keep what is pruned for "
        "one prompt; call the un-compiled model"
    )


def check_hooked(ran: int, expected: int) -> None:
    """Refuse a forward in which not every decoder layer ran its hook, which so was not pruned as reported.

    Args:
        ran: layers that did.
        expected: layers that had one.

    Raises:
        UnsupportedError: naming both numbers.
    """
    if ran != expected:
        raise UnsupportedError(
            f"{ran} of {expected} hooks on decoder layers ran in a forward: a part of the model was replaced, or "
            "compiled by torch.compile, which ignores hooks added later, or layers were skipped; load the model anew"
        )


def check_not_compiled(model: Any) -> None:
    """Refuse a model of which a part was wrapped by torch.compile.

    Raises:
        UnsupportedError: it ignores hooks added later.
    """
    if any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    ):
        raise UnsupportedError(
            "the model was wrapped by torch.compile, which ignores hooks added later; pass the un-compiled model"
        )
