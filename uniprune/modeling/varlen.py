"""Attention of vision towers within windows or images of one sequence: one call per layer, however many there are.

transformers calls a kernel once per window, or with a mask over all images, unless the kernel's name contains "flash":
to such kernels it passes the bounds of the windows.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.weak import WeakTensorKeyDictionary

from uniprune.errors import UnsupportedError

VARLEN = "varlen"
"""Name of the kernel in `--attn` and in records."""
REGISTERED = "varlen_flash"
"""Its name in transformers."""
HALF = (torch.float16, torch.bfloat16)
AMPERE = (8, 0)
"""Compute capability from which torch's variable-length kernel runs."""
LARGEST_HEAD, HEAD_STEP = 256, 8
"""Head dimensions of that kernel: multiples of the second up to the first."""


def has_varlen() -> bool:
    """Check whether this torch has a variable-length kernel, `torch.nn.attention.varlen` (2.10 and later)."""
    return find_spec("torch.nn.attention.varlen") is not None and torch.backends.cuda.is_flash_attention_available()


def usual_tower_attention() -> str:
    """Return the kernel of such towers with half precision on a GPU: flash-attn's only where torch has none."""
    from transformers.utils import is_flash_attn_2_available

    return "flash_attention_2" if not has_varlen() and is_flash_attn_2_available() else VARLEN


def use_tower_attention(model: Any, kernel: str) -> None:
    """Set the attention kernel of a model's vision tower, `VARLEN` or one of transformers."""
    from transformers import AttentionInterface

    if kernel == VARLEN:
        AttentionInterface.register(REGISTERED, Varlen())
    model.set_attn_implementation({"vision_config": REGISTERED if kernel == VARLEN else kernel})


class Varlen:
    """Attention kernel for transformers' `AttentionInterface`.

    On CUDA in half precision a variable-length kernel of torch, which reads nothing back from the device. Elsewhere
    `grouped`: as many calls as there are sizes of windows.
    """

    def __init__(self) -> None:
        self._groups: Any = WeakTensorKeyDictionary()  # bounds -> `by_length`: all layers of a call share a tensor

    def __call__(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        *,
        scaling: float,
        dropout: float = 0.0,
        cu_seq_lens_q: Tensor | None = None,
        max_length_q: int | None = None,
        **rest: Any,
    ) -> tuple[Tensor, None]:
        """Attend within windows of one sequence.

        Args:
            module: the attention module.
            query: [1, heads, S, d].
            key: [1, heads, S, d].
            value: [1, heads, S, d].
            attention_mask: unused: bounds take its place.
            scaling: factor of the logits.
            dropout: probability of dropping an attention weight.
            cu_seq_lens_q: [windows + 1] int32 positions where windows begin, and S.
            max_length_q: longest window.
            rest: further arguments of transformers.

        Returns:
            [1, S, heads, d], and no weights.

        Raises:
            UnsupportedError: the tower passed no bounds.
        """
        if cu_seq_lens_q is None or max_length_q is None:
            raise UnsupportedError(
                f"{type(module).__name__} passes no bounds of windows to its attention kernel, so {VARLEN!r} cannot "
                "serve it; use --attn sdpa"
            )
        q, k, v = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))  # [S, heads, d]
        if dropout == 0 and self._fits(query, scaling):
            bounds, longest = cu_seq_lens_q.to(query.device), int(max_length_q)
            out = self._kernel(q, k, v, bounds, bounds, longest, longest, **self._scale(scaling))
        else:
            if cu_seq_lens_q not in self._groups:
                self._groups[cu_seq_lens_q] = by_length(cu_seq_lens_q.tolist(), query.device)
            out = grouped(q, k, v, self._groups[cu_seq_lens_q], scaling, dropout)
        return out.unsqueeze(0), None

    @cached_property
    def _kernel(self) -> Callable[..., Any]:
        from torch.nn.attention.varlen import varlen_attn

        return varlen_attn

    @cached_property
    def _takes_scale(self) -> bool:
        """False in torch 2.10, whose kernel scales by the root of the head dimension."""
        return has_varlen() and "scale" in inspect.signature(self._kernel).parameters

    def _scale(self, scaling: float) -> dict[str, float]:
        return {"scale": scaling} if self._takes_scale else {}

    def _fits(self, query: Tensor, scaling: float) -> bool:
        """Check whether torch's kernel can make this attention."""
        size = query.shape[-1]
        return (
            query.is_cuda
            and query.dtype in HALF
            and size % HEAD_STEP == 0
            and size <= LARGEST_HEAD
            and has_varlen()
            and torch.cuda.get_device_capability(query.device) >= AMPERE
            and (self._takes_scale or scaling == size**-0.5)
        )


def by_length(bounds: Sequence[int], device: torch.device) -> list[Tensor]:
    """Return the windows between bounds, those of one length together: [windows, length] positions per length."""
    starts = defaultdict[int, list[int]](list)
    for start, stop in pairwise(bounds):
        if stop > start:
            starts[stop - start].append(start)
    positions = [torch.tensor(first)[:, None] + torch.arange(length) for length, first in starts.items()]
    return [where.to(device) for where in positions]


def grouped(
    query: Tensor, key: Tensor, value: Tensor, groups: Sequence[Tensor], scaling: float, dropout: float = 0.0
) -> Tensor:
    """Attend within windows by one call of torch's sdpa per group of windows: [S, heads, d], as the inputs.

    Args:
        query: [S, heads, d].
        key: [S, heads, d].
        value: [S, heads, d].
        groups: [windows, length] positions per group; together they are all of S.
        scaling: factor of the logits.
        dropout: probability of dropping an attention weight.
    """
    out = torch.empty_like(query)
    for where in groups:
        where = where.to(query.device)  # elsewhere only if the tower is spread over several GPUs
        q, k, v = (x[where].transpose(1, 2) for x in (query, key, value))  # [windows, heads, length, d]
        attended = scaled_dot_product_attention(q, k, v, scale=scaling, dropout_p=dropout)
        out[where] = attended.transpose(1, 2)
    return out
