"""Attention from the last tokens of a batch is computed for all prompts at once, as for each alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from torch import Tensor

from tests.helpers.pruners import generate
from tests.helpers.tiny import build, inputs
from uniprune.engine import prune
from uniprune.methods.fastv import FastV
from uniprune.pruning.base import Pruner
from uniprune.pruning.view_batch import ViewBatch


@dataclass(frozen=True, kw_only=True)
class OneByOne(FastV):
    """FastV without its second form."""

    def select_batch(self, batch: ViewBatch, keep: int) -> Tensor | None:
        return None


def kept(family: str, pruner: Pruner, images: tuple[int, ...]) -> list[list[list[int]]]:
    """Return the cells that every image of every prompt keeps."""
    model = build(family, "eager")
    with prune(model, pruner) as session:
        generate(model, inputs(family, images), 1)
    return [[cells.tolist() for cells in row.stages[0].kept] for row in session.reports[-1].rows]


@pytest.mark.parametrize("images", [(1, 1, 1), (1, 1, 1, 1)], ids=["3 prompts", "as many as heads"])
@pytest.mark.parametrize("family", ["internvl-gpt_oss", "llava"])
def test_sinks_are_those_of_heads(family: str, images: tuple[int, ...]) -> None:
    assert kept(family, FastV(ratio=0.5), images) == kept(family, OneByOne(ratio=0.5), images)
