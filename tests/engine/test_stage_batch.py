"""Token groups of one size are decided together; their quantities are those of the views one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tests.helpers.pruners import generate
from tests.helpers.tiny import build, inputs
from uniprune.engine import PromptInfo, prune
from uniprune.engine.decisions import batched
from uniprune.errors import PruningError
from uniprune.pruning.base import Pruner, Selection, Stage
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch

READ: dict[str, Callable[[Any], Any]] = {
    "tokens": lambda x: x.tokens,
    "cells": lambda x: x.cells,
    "prompt": lambda x: x.prompt,
    "text": lambda x: x.text,
    "importance": lambda x: x.vision.importance(),
    "received": lambda x: x.vision.received(),
    "exchanged": lambda x: x.vision.exchanged(),
    "keys": lambda x: x.vision.keys(head_mean=True),
    "hidden": lambda x: x.vision.hidden(),
    "features": lambda x: x.features("vision"),
    "projected": lambda x: x.project(x.features("vision"), "vision"),
    "projected of none": lambda x: x.project(x.features("vision")[..., :0, :], "vision"),
}
INSIDE: dict[str, Callable[[Any], Any]] = {
    "attention": lambda x: x.attention("last"),
    "upcoming": lambda x: x.upcoming("last"),
    "visual rows": lambda x: x.attention("visual"),
    "keys of the layer": lambda x: x.attention.keys("visual"),
}


@dataclass(frozen=True, kw_only=True)
class Together(Pruner):
    """Keeps the longest tokens, and doubles them; compares what a batch returns with what its views return."""

    inside: bool = False
    merges: bool = False
    together: bool = True
    ratio: float = 0.5
    sizes: list[int] = field(default_factory=list)
    prompt_aware: ClassVar[bool] = True
    upcoming_attention: ClassVar[bool] = True

    @property
    def llm_attention(self) -> bool:  # type: ignore[override]
        return self.inside

    @property
    def vision_layers(self) -> tuple[int | None, ...]:
        return (None,)

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        later = Together(inside=True, layer=2, merges=self.merges, together=self.together, sizes=self.sizes)
        return (Stage(0, 0.6, self), Stage(2, 0.5, later), Stage(3, 0.25, later))

    def select(self, view: View, keep: int) -> Tensor | Selection:
        return self.answer(view.tokens, keep)

    def answer(self, tokens: Tensor, keep: int) -> Tensor | Selection:
        picks = tokens.float().norm(dim=-1).argsort(dim=-1, descending=True, stable=True)[..., :keep]
        if not self.merges:
            return picks
        return Selection(picks, 2 * tokens.gather(-2, picks[..., None].expand(*picks.shape, tokens.shape[-1])))

    def select_batch(self, batch: ViewBatch, keep: int) -> Tensor | Selection | None:
        if not self.together:
            return None
        self.sizes.append(len(batch))
        assert bool((batch.cells.diff() > 0).all())
        for name, read in (READ | (INSIDE if self.inside else {})).items():
            for found, view in zip(read(batch), batch.views, strict=True):
                torch.testing.assert_close(found, read(view), atol=1e-6, rtol=1e-5, msg=name)
        return self.answer(batch.tokens, keep)


def found(family: str, images: tuple[int, ...], pruner: Together, given: bool) -> list[Any]:
    with prune(build(family), pruner) as session:
        question = torch.tensor([7, 8, 9]) if given else None
        session.samples = tuple(PromptInfo(str(i), question) for i in range(len(images)))
        tokens, logits = generate(build(family), inputs(family, images), 3)
    rows = session.reports[0].rows
    return [tokens, logits, *(kept for row in rows for stage in row.stages for kept in stage.kept)]


@pytest.mark.parametrize("order", ["raster", "release"])
@pytest.mark.parametrize("merges", [False, True], ids=["picks", "merges"])
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "llava_next"])
def test_together_as_one_by_one(family: str, merges: bool, order: Any) -> None:
    together, alone = (Together(merges=merges, order=order, together=own) for own in (True, False))
    for images in ((1, 1, 1), (1, 2, 1)):
        for one, other in zip(found(family, images, together, True), found(family, images, alone, True), strict=True):
            assert torch.equal(one, other)
    assert together.sizes


@pytest.mark.parametrize("scope", ["prompt", "tile"])
def test_other_scopes(scope: Any) -> None:
    together, alone = (Together(scope=scope, together=own) for own in (True, False))
    for one, other in zip(found("llava", (2, 2), together, False), found("llava", (2, 2), alone, False), strict=True):
        assert torch.equal(one, other)
    assert together.sizes


WRONG: dict[str, tuple[Callable[[Tensor, int], Any], str]] = {
    "one row": (lambda picks, keep: picks[0], r"shape \(8,\); expected \(2, 8\), as select_batch"),
    "too few": (lambda picks, keep: picks[:, 1:], "7 indices; exactly 8 of 16"),
    "outside": (lambda picks, keep: picks + 16 * torch.tensor([[0], [1]]), "sample 'b'.*indices from 16 to 23"),
    "twice": (lambda picks, keep: picks.clamp(max=3) if keep == 8 else picks, "sample 'a'.*duplicate"),
    "no numbers": (
        lambda picks, keep: Selection(picks, torch.tensor([0.0, torch.nan])[:, None, None].expand(2, 8, 64)),
        "sample 'b'.*NaN",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_answers_are_named(case: str) -> None:
    change, message = WRONG[case]

    class Wrong(Pruner):
        def select_batch(self, batch: ViewBatch, keep: int) -> Any:
            return change(torch.arange(keep).expand(len(batch), keep), keep)

    with prune(build("llava"), Wrong(ratio=0.5)) as session, pytest.raises(PruningError, match=message):
        session.samples = (PromptInfo("a"), PromptInfo("b"))
        generate(build("llava"), inputs("llava", (1, 1)), 1)


def test_an_inherited_form_is_not_that_of_another_select() -> None:
    class Doubled(Together):
        def select(self, view: View, keep: int) -> Selection:
            picks = torch.arange(keep)
            return Selection(picks, 2 * view.tokens[:keep])

    class Both(Doubled):
        def select_batch(self, batch: ViewBatch, keep: int) -> None:
            return None

    assert [batched(kind(ratio=0.5)) for kind in (Pruner, Together, Doubled, Both)] == [False, True, False, True]
