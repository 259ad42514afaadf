"""The field `order` of every method: whether kept tokens stay in their places or follow the order of the answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.pruners import FixedAnswer, Plan, generate
from tests.helpers.tiny import FAMILIES, build, inputs
from tests.helpers.views import decide, make_view
from uniprune.engine import prune
from uniprune.errors import PruningError
from uniprune.pruning.base import IntraLLM, PreLLM, Selection

TOKENS = torch.arange(6.0)[:, None]


def answering(answer: Any, order: str) -> FixedAnswer:
    return FixedAnswer(answer=lambda view, keep: answer, order=order)  # type: ignore[arg-type]


def test_kept_tokens_stay_in_their_places_or_take_the_next_kept_one() -> None:
    picks = torch.tensor([4, 0, 3])
    raster = decide(answering(picks, "raster"), make_view(TOKENS), 3)
    assert (raster.indices.tolist(), raster.tokens) == ([0, 3, 4], None)
    release = decide(answering(picks, "release"), make_view(TOKENS), 3)
    assert release.indices.tolist() == [0, 3, 4]
    assert isinstance(release.tokens, Tensor)
    assert release.tokens.flatten().tolist() == [4, 0, 3]


def test_merged_tokens_go_where_their_index_says_or_one_after_the_other() -> None:
    picks, merged = torch.tensor([4, 0, 3]), torch.tensor([[40.0], [0.0], [30.0]])
    for order, want in (("raster", [0, 30, 40]), ("release", [40, 0, 30])):
        answer = decide(answering(Selection(picks, merged), order), make_view(TOKENS), 3)
        assert answer.indices.tolist() == [0, 3, 4]
        assert isinstance(answer.tokens, Tensor)
        assert answer.tokens.flatten().tolist() == want


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (torch.tensor([0, 9, 1]), "indices from 0 to 9; expected 0 to 5"),
        (torch.tensor([0, 0, 1]), "1 duplicate indices"),
        (torch.tensor([True] * 6), "indices of dtype torch.bool"),
        ([0, 1, 2], "list instead of a tensor"),
    ],
)
@pytest.mark.parametrize("order", ["raster", "release"])
def test_a_wrong_answer_is_named_in_either_order(answer: Any, says: str, order: str) -> None:
    with pytest.raises(PruningError, match=says):
        decide(answering(answer, order), make_view(TOKENS), 3)


def test_methods_that_move_tokens_declare_it() -> None:
    assert PreLLM().in_place
    assert not PreLLM(order="release").in_place


def test_parts_of_a_composition_have_their_own_order() -> None:
    chain = PreLLM(order="release") >> IntraLLM()
    assert [stage.pruner.order for stage in chain.schedule(6)] == ["release", "raster"]


@pytest.mark.parametrize("family", FAMILIES)
def test_several_stages_each_apply_it(family: str) -> None:
    """The same sets and counts as in place, at every stage, but other logits."""
    model, x, seen = build(family), inputs(family), {}
    for order in ("raster", "release"):
        plan = Plan(plan={0: 0.8, 2: 0.5, 4: 0.25}, order=order)  # type: ignore[arg-type]
        with prune(model, plan) as session:
            seen[order] = generate(model, x, 2)[1], session.reports[0].rows[0]
    assert seen["raster"][1].entering == seen["release"][1].entering
    kept = [[stage.kept[0].tolist() for stage in row.stages] for _, row in seen.values()]
    assert kept[0] == kept[1]
    assert not torch.equal(seen["raster"][0], seen["release"][0])
