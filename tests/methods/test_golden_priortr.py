"""PriorTR's selections equal those of the copies of its release, stored as numbers, through its own `select`."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.golden_cases import Case, Methods, golden, picked
from tests.helpers.views import Rows, decide, llm_view
from uniprune.errors import UserError
from uniprune.pruning.view import View

ROWS = {"llava": "llava", "internvl": "internvl", "qwen2": "qwen", "qwen3": "qwen"}


def view_of(case: Case) -> View:
    """The case before its pruning layer.

    Where the prior comes from a second forward, it takes the place of the null token's row, and what the mean over the
    question misses by that is spread over the other rows.
    """
    text = case.attn_text2vis
    if case.two_forward:
        assert case.query == "last" or ROWS[case.model] == "qwen"
        prior = case.prior.expand(len(text), -1)
        own = text[:, 1:-1] + (text[:, :1] - prior[:, None]) / (case.T - 2)
        text = torch.cat((prior[:, None], own, text[:, -1:]), 1)
    return llm_view(torch.zeros(case.N, 1, dtype=case.dtype), Rows(text))


def released(methods: Methods, case: Case) -> torch.Tensor:
    """By a threshold on scores where the case has one, however many tokens are asked for."""
    threshold = getattr(case, "score_threshold", None)
    keep = case.k if threshold is None else case.N - 1
    pruner = methods("priortr")(rows=ROWS[case.model], query=case.query, heads=case.head, score_threshold=threshold)
    return decide(pruner, view_of(case), keep).indices


@golden("llm_priortr")
def test_priortr(case: Case, methods: Methods) -> None:
    picked(released(methods, case), case.keep)
    assert len(case.keep) == case.k


@golden("llm_priortr")
def test_a_threshold_decides_how_many_stay(case: Case, methods: Methods) -> None:
    """As many as have a higher score, or one; the rest of the cache goes, too, at any ratio."""
    falling = case.score.sort(descending=True).values
    free = {"rows": ROWS[case.model], "query": case.query, "heads": case.head}
    for threshold, want in (
        (falling[case.k - 1 : case.k + 1].mean().item(), case.keep),
        (1e9, case.score.argmax()[None]),
    ):
        pruner = methods("priortr")(score_threshold=threshold, **free)
        picked(decide(pruner, view_of(case), case.N).indices, want)
        assert not pruner.exact
        assert pruner.evict_from(32) == 0
    equal = llm_view(torch.zeros(4, 1), Rows(torch.full((2, 5, 4), 0.1)))
    assert decide(methods("priortr")(score_threshold=0.0), equal, 4).indices.tolist() == [0]


def test_priortr_defaults(methods: Methods) -> None:
    """The layer of the release, and every layer's cache is cut to what stays."""
    (stage,) = methods("priortr")(ratio=0.5).schedule(32)
    assert stage.layer == 3
    assert methods("priortr")(ratio=0.5).evict_from(32) == 0
    assert methods("priortr")(ratio=0.5, evict=False).evict_from(32) is None
    assert methods("priortr")().evict_from(32) is None
    assert methods("priortr")().prompt_aware


@pytest.mark.parametrize(
    ("rows", "query", "least"),
    [
        *(("llava", "question", 2), ("llava", "last", 2), ("qwen", "question", 3), ("qwen", "last", 2)),
        *(("internvl", "question", 3), ("internvl", "last", 3)),
    ],
)
def test_priortr_needs_a_question_after_the_null_token(rows: str, query: str, least: int, methods: Methods) -> None:
    """Every score is 0 if question and null token are the same row."""
    pruner = methods("priortr")(rows=rows, query=query)
    for count in (least - 1, least):
        view = llm_view(torch.zeros(9, 1), Rows(torch.rand(2, count, 9, generator=torch.Generator().manual_seed(1))))
        if count < least:
            with pytest.raises(UserError, match=f"; {count} tokens follow the image: put the question"):
                pruner.select(view, 4)
        else:
            assert len(set(decide(pruner, view, 4).indices.tolist())) == 4
