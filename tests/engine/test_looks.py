"""Methods that look at states inside the decoder get those of a hand-written loop, wherever their tokens are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.layers import Layers
from tests.helpers.looks import Looking, OnDevice, Watching
from tests.helpers.oracles import deepstack_rows, merged_inputs
from tests.helpers.pruners import Plan, generate, hooks_on
from tests.helpers.tiny import LAYERS, build, inputs, row, visual
from uniprune.engine import PromptInfo, prune
from uniprune.methods.divprune import DivPrune
from uniprune.methods.none import NoPruning
from uniprune.methods.transprune import TransPrune
from uniprune.methods.v2drop import V2Drop
from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import keep_count

pytestmark = pytest.mark.end_to_end

family = pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "internvl", "qwen3_vl"])
Rule = Callable[[Tensor, Tensor, int], Tensor]
"""Scores of the visual columns, of the state of a loop and the number of a layer before which tokens are dropped."""


class Loop:
    """The decoder's layers one module after the other on one prompt, dropping tokens by a rule; eager attention.

    Args:
        model: a model whose layers have two norms.
        x: arguments of its forward; images without markers.
    """

    @torch.no_grad()
    def __init__(self, model: Any, x: dict[str, Tensor]) -> None:
        self.model, self.prompt = model, Layers(model, x["input_ids"])
        embeds, positions = merged_inputs(model, x)
        self.prompt.enter(embeds, positions, x["input_ids"])
        self.hidden, self.at, self.added = embeds, torch.arange(embeds.shape[1]), deepstack_rows(model, x)
        self.visual = visual(x)[0]
        self.states: list[dict[str, tuple[Tensor, Tensor]]] = []  # of every layer: part -> entering, leaving
        self.places: list[Tensor] = []  # of every layer: positions of its tokens

    def attention(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return what enters and leaves the attention of a layer [1, n, D], and its probabilities [H, n, n]."""
        layer, tables = self.model.get_decoder().layers[number], self.prompt._tables[self.prompt.kinds[number]]
        before = layer.input_layernorm(self.hidden)
        after, weights = layer.self_attn(
            hidden_states=before,
            attention_mask=self.prompt.mask(number, self.at, self.at),
            position_embeddings=tuple(table[:, self.at] for table in tables),
        )
        return before, after, weights[0]

    def run(self, number: int) -> None:
        """Run a layer."""
        entering, layer = self.hidden, self.model.get_decoder().layers[number]
        before, after, _ = self.attention(number)
        middle = entering + after
        normed = layer.post_attention_layernorm(middle)
        moved = layer.mlp(normed)
        moved = moved[0] if isinstance(moved, tuple) else moved
        self.hidden = middle + moved
        if number < len(self.added):
            self.hidden = self.hidden + self.added[number][self.at]
        self.states.append({"layer": (entering, self.hidden), "attention": (before, after), "mlp": (normed, moved)})
        self.places.append(self.at)

    def drop(self, kept: Tensor) -> None:
        """Keep text and the visual tokens at positions `kept`."""
        inside = ~self.visual[self.at] | torch.isin(self.at, kept)
        self.hidden, self.at = self.hidden[:, inside], self.at[inside]

    def rows(self, number: int, values: Tensor, positions: Tensor) -> Tensor:
        """Return what `values` [n] of a layer's tokens are at those of positions that are in it."""
        return values[torch.isin(self.places[number], positions)]


def change(loop: Loop, layer: int, own: Tensor) -> Tensor:
    """V2Drop's rule."""
    before, after = loop.states[layer - 1]["layer"]
    return loop.rows(layer - 1, (after - before)[0].norm(dim=-1), own)


def transition(loop: Loop, layer: int, own: Tensor) -> Tensor:
    """TransPrune's rule, accumulated from layer 0 on."""
    total = torch.zeros(len(own))
    for number, states in enumerate(loop.states[:layer]):
        for before, after in (states["attention"], states["mlp"]):
            sizes = [one[0].norm(dim=-1) for one in (before, after)]
            turned = (1 - (before * after)[0].sum(-1) / (sizes[0] * sizes[1])).exp()
            total += loop.rows(number, sizes[1] / sizes[0] * turned / turned.sum(), own)
    columns, after_image = torch.isin(loop.at, own), ~loop.visual[loop.at] & (loop.at > own[-1])
    heard = loop.attention(layer)[2].mean(0)[after_image].mean(0)[columns]
    return total / total.sum() + heard / heard.sum()


@family
@pytest.mark.parametrize(
    ("pruner", "rule"),
    [
        (V2Drop(ratio=0.5, layers=(1, 3, 4), left=(0.6, 0.4, 0.1), budget="paper"), change),
        (DivPrune(ratio=0.5) >> V2Drop(ratio=0.5, layers=(2, 4), left=(0.5, 0.2), budget="paper"), change),
        (TransPrune(ratio=0.2, layers=(1, 3), left=(0.6, 0.2), budget="paper"), transition),
    ],
    ids=["v2drop", "divprune+v2drop", "transprune"],
)
@torch.no_grad()
def test_a_method_drops_what_its_rule_drops_in_a_loop(family: str, pruner: Pruner, rule: Any) -> None:
    x, model = inputs(family, (2,)), build(family)
    with prune(model, pruner) as session:
        got = generate(model, x, 1)[1][0]
    report = session.reports[0].rows[0]
    sizes = [sum(t * h * w for t, h, w in grids) for grids in report.grids]
    loop = Loop(build(family, "eager"), x)
    images = list(loop.visual.nonzero()[:, 0].split(sizes))
    chosen = {stage.layer: stage.kept for stage in report.stages}
    first: dict[int, list[int]] = {}
    for layer in range(LAYERS):
        for stage in (one for one in pruner.schedule(LAYERS) if one.layer == layer):
            counts = first.setdefault(id(stage.pruner), list(map(len, images)))
            kept = []
            for number, (own, count) in enumerate(zip(images, counts, strict=True)):
                if layer:
                    best = rule(loop, layer, own).topk(keep_count(count, stage.ratio)).indices
                    kept.append(own[best.sort().values])
                else:
                    kept.append(own[chosen[0][number]])
            starts = loop.visual.nonzero()[:, 0].split(sizes)
            wanted = [torch.isin(every, own).nonzero()[:, 0] for every, own in zip(starts, kept, strict=True)]
            assert [one.tolist() for one in chosen[layer]] == [one.tolist() for one in wanted]
            images = kept
            loop.drop(torch.cat(kept))
        loop.run(layer)
    last = loop.prompt.logits(loop.prompt.decoder.norm(loop.hidden)[:, -1])
    torch.testing.assert_close(got, last, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", [Watching, OnDevice])
@pytest.mark.parametrize("family", ["llava", "qwen3_vl"])
@torch.no_grad()
def test_rows_follow_their_tokens(family: str, kind: type[Watching]) -> None:
    """Through further stages and a padded batch: those of every look are the loop's, prompt by prompt."""
    images = (1, 2)
    x, watching = inputs(family, images), kind(plan={1: 0.7, 3: 0.5})
    with prune(build(family), watching) as session:
        session.samples = (PromptInfo("a"), PromptInfo("b"))
        generate(build(family), x, 1)
    for prompt, report in enumerate(session.reports[0].rows):
        alone = row(family, x, prompt, images)
        loop = Loop(build(family, "eager"), alone)
        sizes = [sum(t * h * w for t, h, w in grids) for grids in report.grids]
        every = loop.visual.nonzero()[:, 0].split(sizes)
        stages = {stage.layer: stage.kept for stage in report.stages}
        arriving = every
        for layer in range(4):
            if layer in stages:
                views = watching.seen[layer][prompt:] if prompt == 0 else watching.seen[layer][-images[prompt] :]
                for own, (_, seen, _) in zip(arriving, views, strict=False):
                    assert len(seen) == 3 * layer
                    for number, rows in enumerate(seen):
                        states = loop.states[number // 3][("attention", "mlp", "layer")[number % 3]]
                        for side, want in enumerate(states):
                            wanted = loop.rows(number // 3, want[0], own)
                            torch.testing.assert_close(rows[:, side], wanted, atol=1e-4, rtol=1e-3)
                arriving = tuple(whole[kept] for whole, kept in zip(every, stages[layer], strict=True))
                loop.drop(torch.cat(arriving))
            loop.run(layer)


@pytest.mark.parametrize("kind", [Watching, OnDevice])
@torch.no_grad()
def test_a_token_in_another_place_has_its_own_rows(kind: type[Watching]) -> None:
    x, watching = inputs("llava"), kind(plan={1: 0.5, 2: 0.3, 3: 0.2}, parts=("layer",), order="release")
    with prune(build("llava"), watching):
        build("llava")(**x)
    order = torch.arange(int(visual(x).sum()))
    embeds = merged_inputs(build("llava"), x)[0][0, visual(x)[0]]
    for layer in (1, 2, 3):
        ((view, seen, chosen),) = watching.seen[layer]
        assert torch.equal(seen[0][:, 0], embeds[order])
        torch.testing.assert_close(seen[-1][:, 1], view.tokens)
        order = order[chosen]
    assert len(order)


@pytest.mark.parametrize("name", ["llava", "gemma3", "qwen3_5", "gemma4-e2b"])
@torch.no_grad()
def test_looking_changes_nothing(name: str) -> None:
    """Not the logits, by a single bit, nor the model; also where norms follow attention and MLP, or it is linear."""
    model, x, plan = build(name), inputs(name), {1: 0.5, 2: 0.4}
    generate(model, x, 1)
    before = hooks_on(model)
    with prune(model, Plan(plan=plan)):
        plain, hooked = generate(model, x, 2)[1], hooks_on(model)
    watching = Watching(plan=plan)
    with prune(model, watching):
        assert torch.equal(generate(model, x, 2)[1], plain)
        assert hooks_on(model) == hooked + 8  # before and after attention and MLP of two layers
    assert hooks_on(model) == before
    assert [len(seen) for _, seen, _ in watching.seen[2]] == [6]


@torch.no_grad()
def test_beams_are_looked_at_as_one_prompt() -> None:
    model, x = build("llava"), inputs("llava")
    pruner, found = V2Drop(ratio=0.5, layers=(1, 3), left=(0.5, 0.2), budget="paper"), []
    for beams in (1, 2):
        with prune(model, pruner) as session:
            generate(model, x, 2, num_beams=beams)
        found.append([stage.kept[0].tolist() for stage in session.reports[0].rows[0].stages])
    assert found[0] == found[1]


def test_without_pruning_nothing_is_hooked() -> None:
    model, x = build("llava"), inputs("llava")
    plain = generate(model, x, 2)[1]
    with prune(model, NoPruning()):
        hooked = hooks_on(model)
    for pruner in (V2Drop(), TransPrune(), Looking(ratio=1.0)):
        with prune(model, pruner):
            assert hooks_on(model) == hooked
            assert torch.equal(generate(model, x, 2)[1], plain)
