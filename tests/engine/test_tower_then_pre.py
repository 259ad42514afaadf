"""A stage in the vision tower before one in front of the language model equals both written out by hand."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tests.engine.test_tower_stage import METHOD, SEQUENCES, SIDE_BY_SIDE, alone, entering, seen
from tests.helpers.oracles import deepstack_rows, dropped_by, merged_inputs, physically_short
from tests.helpers.pruners import generate
from tests.helpers.tiny import IMAGE, build, inputs
from tests.helpers.views import make_view
from tests.modeling.test_flops import counted
from uniprune.conformance.state import weights
from uniprune.engine import prune
from uniprune.errors import UnsupportedError, UserError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.pooling import Pooling
from uniprune.methods.random_pre import RandomPre
from uniprune.methods.random_tower import RandomTower
from uniprune.methods.tome import ToMe
from uniprune.methods.visionzip import VisionZip
from uniprune.modeling.families import find_adapter
from uniprune.pruning.base import IntraLLM, Pruner, Selection
from uniprune.pruning.budget import declared, keep_count
from uniprune.pruning.fields import NonNegative
from uniprune.pruning.functional import top_k
from uniprune.pruning.view import View

THEN = DivPrune(ratio=0.5)
CASES: list[tuple[str, Pruner]] = [
    *((family, METHOD) for family in (*SIDE_BY_SIDE, *SEQUENCES)),
    ("llava", ToMe(ratio=0.4)),
    ("qwen2_5_vl", RandomTower(ratio=0.6, block=2)),
]


@pytest.mark.parametrize(("family", "first"), CASES, ids=lambda case: getattr(case, "block", case))
def test_the_second_chooses_from_what_the_tower_kept(family: str, first: Pruner) -> None:
    """Tokens of a session of the first alone, a choice on a view of them, and a prompt that is that short."""
    model, x = build(family), inputs(family, (2,))
    with prune(model, first >> THEN) as session:
        tokens, logits = generate(model, x, 4)
    with prune(model, first) as single, torch.no_grad():
        model(**x)
        embeds, positions = merged_inputs(model, x)
        added = deepstack_rows(model, x)
    keep = ~dropped_by(single.reports[-1], x)[0][0]
    [row], [both] = single.reports[-1].rows, session.reports[0].rows
    places = (x["input_ids"][0] == IMAGE).nonzero()[:, 0]
    for group, cells, end in zip(row.groups, row.stages[0].kept, both.stages[1].kept, strict=True):
        own = places[group.ranks[cells]]
        count = keep_count(len(own), 0.5)
        chosen = THEN.select(make_view(embeds[0, own]), count)
        keep[own] = False
        keep[own[chosen]] = True
        assert end.tolist() == cells[chosen.sort().values].tolist()
    assert [stage.layer for stage in both.stages] == [0, 0]
    assert all(torch.equal(a, b) for a, b in zip(both.stages[0].kept, row.stages[0].kept, strict=True))
    want_tokens, want = physically_short(model, embeds, positions, keep, 4, added, x["input_ids"])
    assert tokens[0].tolist() == want_tokens
    torch.testing.assert_close(logits[0], want, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_it_equals_a_loop_over_the_tower() -> None:
    """No session has a part in what is expected: blocks, projector, choice, and a short prompt."""
    model, x = build("llava"), inputs("llava")
    with prune(model, METHOD >> THEN) as session:
        _, logits = generate(model, x, 3)
    first, second = session.reports[0].rows[0].stages
    (states, _), adapter = entering(model, x), find_adapter(model)
    tokens = adapter.project(alone(model, states[0], first.kept[0], 0))
    chosen = THEN.select(make_view(tokens), keep_count(len(tokens), 0.5)).sort().values
    assert first.kept[0][chosen].tolist() == second.kept[0].tolist()
    (embeds, positions), places = merged_inputs(model, x), (x["input_ids"][0] == IMAGE).nonzero()[:, 0]
    embeds[0, places[first.kept[0]]] = tokens
    keep = torch.ones(embeds.shape[1], dtype=torch.bool)
    keep[places] = False
    keep[places[second.kept[0]]] = True
    _, want = physically_short(model, embeds, positions, keep, 3)
    torch.testing.assert_close(logits[0], want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["llava", "internvl", "qwen2_5_vl", "qwen3_vl"])
def test_rows_of_a_padded_batch_are_rows_alone(family: str) -> None:
    model, x = build(family), inputs(family, (2, 1))
    generate(model, x, 1)  # transformers adds hooks of its own in a model's first forward
    before, pruner = weights(model), METHOD >> THEN >> FastV(ratio=0.5)
    with prune(model, pruner) as session:
        _, logits = generate(model, x, 3)
        _, single = generate(model, inputs(family, (2,)), 3)
    assert weights(model) == before
    together, apart = (report.rows[0] for report in session.reports)
    assert together.entering == apart.entering
    assert [stage.layer for stage in together.stages] == [0, 0, 2]
    for one, other in zip(together.stages, apart.stages, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.kept, other.kept, strict=True))
    torch.testing.assert_close(logits[0], single[0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("family", ["llava", "internvl", "qwen2_5_vl", "gemma3"])
def test_counts_and_operations_are_those_of_both(family: str) -> None:
    model, x, pruner = build(family, "eager"), inputs(family, (2,)), METHOD >> THEN >> FastV(ratio=0.5)
    depth = len(find_adapter(model).layers)
    report = seen(model, x, pruner)[0]
    [row] = report.rows
    sizes = [prod(grid) for group in row.groups for grid in group.grids]
    left = [keep_count(keep_count(size, 0.4), 0.5) for size in sizes]
    assert row.entering[:2] == [sum(left)] * 2
    assert row.entering[2:] == [sum(keep_count(one, 0.5) for one in left)] * (depth - 2)
    counts = [declared(group.grids, pruner.schedule(depth), depth) for group in row.groups]
    assert [sum(layer) for layer in zip(*counts, strict=True)] == row.entering
    with torch.no_grad():
        ours, theirs = counted(model, METHOD >> RandomPre(ratio=0.5), x)
    assert ours == theirs


def test_compact_positions_are_those_of_a_short_prompt() -> None:
    model, x = build("llava"), inputs("llava")
    pruner = RandomTower(ratio=0.4, positions="compact") >> DivPrune(ratio=0.5, positions="compact")
    with prune(model, pruner) as session:
        _, logits = generate(model, x, 3)
    with prune(model, METHOD), torch.no_grad():
        embeds, _ = merged_inputs(model, x)
    keep = ~dropped_by(session.reports[0], x)[0][0]
    short = embeds[:, keep]
    _, want = physically_short(model, short, torch.arange(short.shape[1])[None], torch.ones(short.shape[1]).bool(), 3)
    torch.testing.assert_close(logits[0], want, atol=1e-5, rtol=1e-4)


def test_a_user_writes_it_as_any_composition() -> None:
    pruner = MethodSpec("random-tower+divprune", ratio=0.25, settings={"block": "1"}).pruner()
    assert [(stage.layer, stage.block, stage.ratio) for stage in pruner.schedule(4)] == [(0, 1, 0.5), (0, None, 0.5)]
    assert pruner.scope == "image"


@dataclass(frozen=True, kw_only=True)
class Coming(IntraLLM):
    """Keeps what the last token will attend to in layer 0."""

    layer: NonNegative = 0
    upcoming_attention: ClassVar[bool] = True

    def select(self, view: View, keep: int) -> Tensor:
        return top_k(view.upcoming("last").mean((0, 1)), keep)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_the_second_may_read_the_attention_of_layer_0(family: str) -> None:
    """Its arguments, made for what the tower kept, are not those with which the layer then runs."""
    model, x = build(family), inputs(family)
    with prune(model, METHOD >> Coming(ratio=0.5)) as session:
        _, logits = generate(model, x, 3)
    with prune(model, METHOD), torch.no_grad():
        embeds, positions = merged_inputs(model, x)
    keep = ~dropped_by(session.reports[0], x)[0][0]
    _, want = physically_short(model, embeds, positions, keep, 3)
    torch.testing.assert_close(logits[0], want, atol=1e-5, rtol=1e-4)


def refused(family: str, pruner: Pruner, x: Any = None) -> None:
    with prune(build(family), pruner), torch.no_grad():
        build(family)(**(x or inputs(family)))


def test_what_would_not_be_exact_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"increasing layers \(-1: tower\), got \[0, -1\]"):
        THEN >> METHOD
    with pytest.raises(UserError, match=r"got \[-1, -1\]"):
        METHOD >> ToMe(ratio=0.5)
    with pytest.raises(UnsupportedError, match="Pooling takes whole grids of tokens, and RandomTower leaves gaps"):
        refused("llava", METHOD >> Pooling(ratio=0.5))
    with pytest.raises(UnsupportedError, match="Compose reads blocks of a vision tower inside which"):
        refused("llava", METHOD >> VisionZip(ratio=0.5))


def test_a_tower_that_keeps_all_leaves_no_gaps() -> None:
    model, x = build("llava"), inputs("llava")
    with prune(model, RandomTower(ratio=1.0) >> Pooling(ratio=0.25)) as session:
        _, logits = generate(model, x, 2)
    with prune(model, Pooling(ratio=0.25)):
        assert torch.equal(generate(model, x, 2)[1], logits)
    assert len(session.reports[0].rows[0].stages) == 1


def test_gaps_are_taken_by_methods_that_say_so() -> None:
    """Every method that declares it chooses alike from tokens with gaps and from the same tokens as a whole grid."""
    names = ("divprune", "random-pre", "cdpruner", "cdpruner-blocks", "zspaprune", "gprune", "trim")
    question: Tensor = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    tokens, cells = torch.randn(12, 16, generator=torch.Generator().manual_seed(0)), torch.arange(0, 36, 3)
    for name in names:
        pruner = MethodSpec(name, ratio=0.5, settings={"text": "llm"} if name == "trim" else {}).pruner()
        assert type(pruner).takes_gaps
        answers = [
            pruner.select(make_view(tokens, grids=[grid], cells=own, initial=prod(grid), prompt=question), 5)
            for grid, own in (((1, 6, 6), cells), ((1, 3, 4), torch.arange(12)))
        ]
        picks = [answer.indices if isinstance(answer, Selection) else answer for answer in answers]
        assert torch.equal(*picks), name
