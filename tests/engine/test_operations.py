"""Budgets of operations: what a prefill of eight prompts costs, method included, and a decode step.

Every operation is a kernel that a GPU has to start, for 5 to 10 µs of the CPU's time each.
"""

from __future__ import annotations

import pytest
import torch

from tests.helpers.operations import Operations
from tests.helpers.pruners import generate
from tests.helpers.tiny import build, inputs
from uniprune.engine import PromptInfo, prune
from uniprune.methods import _fopru
from uniprune.methods.dart import DART
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.fopru import FoPru
from uniprune.methods.none import NoPruning
from uniprune.methods.prumerge import PruMerge
from uniprune.methods.pyramiddrop import PyramidDrop
from uniprune.methods.random_pre import RandomPre
from uniprune.methods.visionzip import VisionZip
from uniprune.pruning import functional, merging
from uniprune.pruning.base import Pruner

PROMPTS = 8


def operations(pruner: Pruner, family: str = "llava", steps: int = 1, padded: bool = False) -> Operations:
    """Count those of one call of `generate` on prompts of one length, or of two."""
    model, x = build(family), inputs(family, (1, 2) if padded else (1,))
    times = PROMPTS // 2 if padded else PROMPTS
    x = {name: torch.cat([value] * times) for name, value in x.items()}
    with prune(model, pruner) as session:
        for count in (Operations(), Operations()):  # the second time nothing is built that later calls use again
            session.samples = tuple(PromptInfo(str(i), torch.tensor([7, 8, 9])) for i in range(PROMPTS))
            with count:
                generate(model, x, steps)
    return count


@pytest.mark.parametrize(
    ("pruner", "most", "padded"),
    [
        (NoPruning(), 2, False),
        (NoPruning(), 2, True),
        (DivPrune(ratio=1.0), 2, False),
        (RandomPre(ratio=0.5), 18, False),
        (RandomPre(ratio=0.5), 25, True),  # 12 of them draw numbers, one for each image
        (DivPrune(ratio=0.5), 18, False),
        (DivPrune(ratio=0.5), 21, True),
        (FastV(ratio=0.5), 24, False),
        (FastV(ratio=0.5), 30, True),
        (PyramidDrop(ratio=0.5), 130, False),
        (PyramidDrop(ratio=0.5), 160, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Pruner) else None,
)
def test_operations_of_a_prefill(monkeypatch: pytest.MonkeyPatch, pruner: Pruner, most: int, padded: bool) -> None:
    monkeypatch.setattr(functional, "on_cpu", lambda x: False)  # the operations of a GPU
    found = operations(pruner, padded=padded)
    assert found.total <= most, found.count


@pytest.mark.parametrize(
    ("pruner", "family", "most"),
    [
        (VisionZip(ratio=0.5), "llava", 67),
        (VisionZip(ratio=0.5), "qwen2_5_vl", 140),  # half of them two kernels on a GPU, `tower_attention_triton`
        (PruMerge(ratio=0.5), "llava", 62),
        (DART(ratio=0.5), "llava", 94),
        (FoPru(ratio=0.5), "llava", 39),
    ],
    ids=["visionzip", "visionzip on qwen2_5_vl", "prumerge", "dart", "fopru"],
)
def test_operations_of_a_prefill_with_quantities(
    monkeypatch: pytest.MonkeyPatch, pruner: Pruner, family: str, most: int
) -> None:
    """Reading the tower and the decoder counts, too: once for all prompts."""
    for module in (functional, merging, _fopru):
        monkeypatch.setattr(module, "on_cpu", lambda x: False)
    found = operations(pruner, family)
    assert found.total <= most, found.count


@pytest.mark.parametrize("pruner", [NoPruning(), RandomPre(ratio=0.5), FastV(ratio=0.5)])
def test_decode_steps_of_equal_prompts_cost_none(pruner: Pruner) -> None:
    assert operations(pruner, steps=4).count == operations(pruner).count


@pytest.mark.parametrize("pruner", [RandomPre(ratio=0.5), FastV(ratio=0.5), PyramidDrop(ratio=0.5)])
def test_decode_steps_of_a_padded_batch_cost_none(pruner: Pruner) -> None:
    """Their masks are copied from the CPU."""
    assert operations(pruner, steps=4, padded=True).count == operations(pruner, padded=True).count


def test_an_operation_of_the_engine_is_counted() -> None:
    with Operations() as found:
        torch.ones(2) + 1
        assert not found.count
        DivPrune.select(DivPrune(), type("View", (), {"tokens": torch.rand(6, 4)})(), 3)  # type: ignore[arg-type]
    assert found.count["farthest_points"] == 1
    assert found.total > 1
