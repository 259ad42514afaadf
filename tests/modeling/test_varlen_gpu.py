"""Torch's variable-length kernel on a CUDA device: attention and features as under sdpa, nothing read back."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.tiny import fresh_model, inputs
from uniprune.engine.vision_batch import encode
from uniprune.modeling.families import find_adapter
from uniprune.modeling.varlen import VARLEN, Varlen, by_length, grouped, has_varlen, use_tower_attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available() or not has_varlen(), reason="needs a CUDA device, torch >= 2.10"),
]
GPU = torch.device("cuda")
HALF = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


def distance(got: Tensor, want: Tensor) -> float:
    """Return the norm of the difference over that of `want`."""
    return float((got.float() - want.float()).norm() / want.float().norm())


@HALF
@pytest.mark.parametrize("size", [8, 64, 72, 80, 128, 256])
@pytest.mark.parametrize("lengths", [(64,) * 20, (64, 32, 64, 16, 1, 64), (1500, 700)])
def test_attention_within_windows(dtype: torch.dtype, size: int, lengths: tuple[int, ...]) -> None:
    """Against float64 window by window, without a synchronisation; values lie between others, as in a fused layer."""
    bounds = list(accumulate(lengths, initial=0))
    generator = torch.Generator().manual_seed(0)
    fused = torch.randn(bounds[-1], 3, 4, size, generator=generator).to(GPU, dtype)
    parts = fused.unbind(1)
    q, k, v = (x.double() for x in parts)
    want = grouped(q, k, v, by_length(bounds, GPU), 0.1)
    where = torch.tensor(bounds, dtype=torch.int32, device=GPU)
    query, key, value = (x.transpose(0, 1)[None] for x in parts)
    varlen = Varlen()
    if not varlen._fits(query, 0.1):
        pytest.skip("torch 2.10 scales by the head dimension only")
    torch.cuda.set_sync_debug_mode("error")
    try:
        got, _ = varlen(
            None, query, key, value, scaling=0.1, cu_seq_lens_q=where, max_length_q=max(lengths), is_causal=False
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert got.shape == (1, bounds[-1], 4, size)
    assert distance(got[0], want) < 0.01


@HALF
@pytest.mark.parametrize(
    "family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v", "llava-pixtral", "mistral3"]
)
def test_features_are_as_exact_as_those_of_sdpa(family: str, dtype: torch.dtype) -> None:
    """Against float64 with the same weights; the tiny models' few sharp heads spread bfloat16's rounding to 3 %."""
    model = fresh_model(family).to(GPU, dtype)
    if not find_adapter(model).packed:
        pytest.skip("this transformers passes no bounds")
    batch = {name: x.to(GPU, dtype) if x.is_floating_point() else x.to(GPU) for name, x in pixels(family).items()}
    sdpa = features(model, batch)
    use_tower_attention(model, VARLEN)
    got = features(model, batch)
    use_tower_attention(model, "sdpa")
    exact = features(model.double(), {name: x.double() if x.is_floating_point() else x for name, x in batch.items()})
    assert distance(got, exact) < 1.5 * distance(sdpa, exact)
    assert distance(got, sdpa) < (0.03 if dtype == torch.float16 else 0.06)


def pixels(family: str) -> dict[str, Tensor]:
    """Return the pixel inputs of three images of different sizes."""
    return {name: x for name, x in inputs(family, (1, 2)).items() if name not in ("input_ids", "attention_mask")}


def features(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the image features of a model: [tokens, D]."""
    with torch.no_grad():
        output = encode(find_adapter(model), batch).pooler_output
    return output if isinstance(output, Tensor) else torch.cat(list(output))
