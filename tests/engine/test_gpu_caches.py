"""Tests that need a CUDA device: attention kernels, KV caches and the memory they take. Skipped without one."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.torch_version import TorchVersion
from transformers import DynamicCache

from tests.helpers.oracles import dropped_by
from tests.helpers.pruners import KINDS, generate
from tests.helpers.tiny import fresh_model, inputs
from uniprune.engine import PrefillReport, prune
from uniprune.engine.compaction import cached_layers, held_layers
from uniprune.engine.served import OFFLOADING
from uniprune.errors import UnsupportedError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("error:greedy selections run pick by pick"),
]
Kernel = str | dict[str, str]
"""Name of an attention kernel, or names by part of the config; the others are left as they are."""
GPU, STEPS = torch.device("cuda"), 6
SCORED = ("merging before", "attention", "merging inside", "evicting")
"""Kinds whose choice follows from scores, which kernels of half precision round differently."""
FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
CASES = [
    (family, kind)
    for family in ("llava", "qwen2_5_vl")
    for kind in KINDS
    if not (kind == "compact" and family.startswith("qwen"))
]
family_and_kind = pytest.mark.parametrize(("family", "kind"), CASES)


def batch(family: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return a padded batch on the GPU, its pixels in the model's precision."""
    found = inputs(family, (1, 2)).items()
    return {name: x.to(GPU, dtype if x.is_floating_point() else x.dtype) for name, x in found}


def answer(
    family: str, kernel: Kernel, kind: str, dtype: torch.dtype = torch.float32, steps: int = STEPS
) -> tuple[Tensor, Tensor, PrefillReport]:
    """Return new tokens, their logits and the prefill's report under a kernel; the same weights for all of them."""
    model = fresh_model(family).to(GPU, dtype)
    model.set_attn_implementation(kernel)
    with torch.inference_mode(), prune(model, KINDS[kind]) as session:
        tokens, logits = generate(model, batch(family, dtype), steps)
    return tokens, logits.float(), session.reports[0]


def kept(family: str, report: PrefillReport) -> list[Any]:
    """Return what every stage dropped."""
    return [(layer, columns.tolist()) for layer, columns in dropped_by(report, inputs(family, (1, 2))).items()]


def check_equal(family: str, kernel: Kernel, kind: str, steps: int = STEPS) -> None:
    """Compare with sdpa in float32: the same choice and tokens, and logits up to the order of additions."""
    want_tokens, want, ours = answer(family, "sdpa", kind, steps=steps)
    tokens, got, theirs = answer(family, kernel, kind, steps=steps)
    assert kept(family, theirs) == kept(family, ours)
    assert torch.equal(tokens, want_tokens)
    torch.testing.assert_close(got, want, atol=5e-4, rtol=1e-3)


# --- attention kernels ------------------------------------------------------------------------------------------
@family_and_kind
def test_eager_is_sdpa(family: str, kind: str) -> None:
    check_equal(family, "eager", kind)


@family_and_kind
def test_flex_attention_is_sdpa(family: str, kind: str) -> None:
    """Not compiled, which takes half a minute per length of the prompt."""
    if not type(fresh_model(family))._supports_flex_attn:
        pytest.skip("the family has no such kernel")
    with torch.compiler.set_stance("force_eager"):
        check_equal(family, "flex_attention", kind)


def test_compiled_flex_attention_is_sdpa() -> None:
    """In the decoder: heads of the tower have 8 numbers, and on CUDA the kernel takes no fewer than 16."""
    check_equal("llava", {"text_config": "flex_attention"}, "attention", steps=3)


@family_and_kind
@pytest.mark.parametrize("kernel", FLASH)
def test_flash_attention_is_sdpa_up_to_its_precision(family: str, kind: str, kernel: str) -> None:
    """In half precision: the same choice where it does not follow from scores, and there the same first logits."""
    if importlib.util.find_spec(FLASH[kernel]) is None:
        pytest.skip(f"{FLASH[kernel]} is not installed")
    (_, want, ours), (_, got, theirs) = (answer(family, name, kind, torch.bfloat16, 1) for name in ("sdpa", kernel))
    assert [row.entering for row in theirs.rows] == [row.entering for row in ours.rows]
    if kind not in SCORED:
        assert kept(family, theirs) == kept(family, ours)
        assert float((got - want).norm() / want.norm()) < 0.05


# --- caches -----------------------------------------------------------------------------------------------------
def refused(kind: str, implementation: str) -> str | None:
    """Return what the refusal of a cache says; None if it is served."""
    if implementation == "offloaded" and TorchVersion(transformers.__version__) < OFFLOADING:
        return f"an offloaded DynamicCache .* with transformers {OFFLOADING} or newer"
    return "needs a DynamicCache on the model's device" if kind == "evicting" else None


@family_and_kind
@pytest.mark.parametrize("implementation", ["static", "offloaded"])
def test_caches_answer_as_a_dynamic_one_or_are_refused(family: str, kind: str, implementation: str) -> None:
    model, x = fresh_model(family).to(GPU), batch(family)
    options = {"cache_implementation": implementation, "disable_compile": True}
    with torch.inference_mode(), prune(model, KINDS[kind]) as session:
        tokens, logits = generate(model, x, STEPS)
        if refusal := refused(kind, implementation):
            with pytest.raises(UnsupportedError, match=refusal):
                generate(model, x, STEPS, **options)
            return
        got_tokens, got = generate(model, x, STEPS, **options)
    want, report = session.reports
    assert [row.entering for row in report.rows] == [row.entering for row in want.rows]
    assert torch.equal(got_tokens, tokens)
    torch.testing.assert_close(got, logits, atol=5e-4, rtol=1e-3)


def test_offloaded_static_caches_are_refused() -> None:
    """With transformers 5.17 logits of later steps were off by 2.5."""
    model, x = fresh_model("llava").to(GPU), batch("llava")
    with prune(model, KINDS["both"]), pytest.raises(UnsupportedError, match="an offloaded StaticCache"):
        generate(model, x, STEPS, cache_implementation="offloaded_static", disable_compile=True)


def test_decode_steps_that_generate_compiles_are_refused() -> None:
    """On CUDA it does so by itself for static caches."""
    model, x = fresh_model("llava").to(GPU), batch("llava")
    with prune(model, KINDS["both"]), pytest.raises(UnsupportedError, match="pass disable_compile=True"):
        generate(model, x, STEPS, cache_implementation="static")


# --- memory -----------------------------------------------------------------------------------------------------
def growth(run: Callable[[], Any]) -> tuple[int, Any]:
    """Return by how many bytes the allocated memory is larger after `run` than before, and what `run` returns."""
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    result = run()
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated() - before, result


def rounded(tensor: Tensor) -> int:
    """Return the bytes that CUDA's allocator gives a tensor: whole blocks of 512."""
    return -(-tensor.numel() * tensor.element_size() // 512) * 512


@family_and_kind
def test_a_prefill_leaves_the_bytes_of_the_tokens_that_are_left(family: str, kind: str) -> None:
    model, x = fresh_model(family).to(GPU), batch(family)

    def prefill() -> DynamicCache:
        cache = DynamicCache()
        model(**x, past_key_values=cache, use_cache=True)
        return cache

    with torch.inference_mode():
        prefill()  # workspaces of libraries, which stay
        bare, _ = growth(prefill)
        with prune(model, KINDS[kind]) as session:
            prefill()
            pruned, cache = growth(prefill)
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    sizes = cached_layers(held_layers(cache))
    assert sizes is not None
    assert sum(tensor.nbytes for tensor in tensors) == 2 * sum(size.token * size.columns for size in sizes)
    expected = sum(map(rounded, tensors))
    assert 0 <= pruned - expected <= 2**14  # the report's indices and the positions of the next token
    assert pruned < bare
    assert session.reports[-1].pruned
