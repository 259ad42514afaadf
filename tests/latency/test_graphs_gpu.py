"""Prefills captured as CUDA graphs. Skipped without a GPU."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.recorded_prefills import DIVPRUNE, FASTV, METHODS, Peeking, prompts, recorded
from tests.helpers.tiny import fresh_model
from uniprune.errors import UnsupportedError
from uniprune.latency.graphs import PrefillGraphs
from uniprune.latency.prompts import Prompts
from uniprune.latency.replay import Captured
from uniprune.modeling.families import find_adapter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CASES = [
    *((family, method, torch.float32) for family in ("llava", "qwen2_5_vl") for method in METHODS),
    *(
        (family, method, torch.bfloat16)
        for family in ("llava", "internvl", "qwen2_5_vl", "qwen3_vl", "gemma3", "gemma4-e2b", "qwen3_5")
        for method in ("none", "hybrid")
    ),
]


def on_gpu(family: str, dtype: torch.dtype) -> tuple[Any, Prompts]:
    """Return a new model and two equal prompts, on the GPU."""
    batch = prompts(family)
    moved = {name: x.to("cuda", dtype if x.is_floating_point() else x.dtype) for name, x in batch.inputs.items()}
    return fresh_model(family).to("cuda", dtype), Prompts(moved, batch.samples)


@torch.inference_mode()
@pytest.mark.parametrize(("family", "method", "dtype"), CASES)
def test_captured_prefills_compute_what_the_eager_one_does(family: str, method: str, dtype: torch.dtype) -> None:
    """The construction compares every segment; here also the logits, again and again, and after another input."""
    model, batch = on_gpu(family, dtype)
    segments, _, logits = recorded(model, METHODS[method], batch)
    graphs = PrefillGraphs(segments)
    assert isinstance(graphs._play, Captured)
    entering = segments.stretches[-1].entering
    for _ in range(3):
        torch.testing.assert_close(graphs.run()[-1], logits, rtol=0.02, atol=0.02 * float(logits.abs().max()))
        held = entering.clone()
        entering.mul_(-0.5)
        assert not torch.allclose(graphs.run()[-1].float(), logits.float(), rtol=0.1)
        entering.copy_(held)
    assert 0 < graphs.seconds() < 1


@torch.inference_mode()
def test_keys_and_values_are_written_by_every_replay() -> None:
    model, batch = on_gpu("llava", torch.float32)
    segments, cache, _ = recorded(model, FASTV, batch)
    graphs = PrefillGraphs(segments)
    (states,) = graphs._play._states  # type: ignore[union-attr]  # on a GPU it is `Captured`
    for layer in states.layers:
        layer.keys.zero_()
        layer.values.zero_()
    graphs.run()
    for layer, eager in zip(states.layers, cache.layers, strict=True):
        torch.testing.assert_close(layer.keys, eager.keys)
        torch.testing.assert_close(layer.values, eager.values)


@torch.inference_mode()
def test_memory_is_free_again_afterwards() -> None:
    model, batch = on_gpu("llava", torch.float32)
    adapter = find_adapter(model)
    for _ in range(2):  # libraries keep workspaces from the first time
        gc.collect()  # what tests before this one have left
        before = torch.cuda.memory_allocated()
        graphs = PrefillGraphs.of(adapter, FASTV, batch)
        assert torch.cuda.memory_allocated() > before
        del graphs
        gc.collect()
        after = torch.cuda.memory_allocated()
    assert after <= before


class Detour(nn.Module):
    """An MLP that computes on the host, which no graph can hold."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.mlp(hidden.cpu().to(hidden.device))
        return result


@torch.inference_mode()
@pytest.mark.parametrize(
    ("part", "reason"), [(Peeking, "which depends on values"), (Detour, "waits for the GPU, and a graph cannot")]
)
def test_what_cannot_be_captured_is_refused_and_others_still_can_be(part: Any, reason: str) -> None:
    model, batch = on_gpu("llava", torch.float32)
    adapter = find_adapter(model)
    mlp = adapter.layers[1].mlp
    adapter.layers[1].mlp = part(mlp)
    with pytest.raises(UnsupportedError, match=reason):
        PrefillGraphs.of(adapter, DIVPRUNE, batch)
    adapter.layers[1].mlp = mlp
    assert PrefillGraphs.of(adapter, DIVPRUNE, batch).segments == 1
