"""Decisions of the methods for which there are no reference vectors: the un-pruned model and pooling."""

from __future__ import annotations

import torch

from tests.helpers.golden_cases import Methods, same
from tests.helpers.views import Tower, decide, make_view, noise
from uniprune.registry import METHODS


def test_the_unpruned_model_prunes_nowhere(methods: Methods) -> None:
    none = methods("none")
    assert none.kind == "none"
    assert none(ratio=0.1).schedule(28) == none().schedule(4) == ()
    assert none(ratio=0.5).with_ratio(0.1) == none(ratio=0.5)


def test_pooling_averages_blocks(methods: Methods) -> None:
    """A quarter of a 4 x 6 grid beside one of 2 x 2: means of 2 x 2 blocks, at the first of their middle tokens."""
    tokens, features = noise(28, 3), noise(29, 3)[1:]
    blocks = [[row * 6 + column + at for at in (0, 1, 6, 7)] for row in (0, 2) for column in (0, 2, 4)]
    blocks.append([24, 25, 26, 27])
    grids, tower = [(1, 4, 6), (1, 2, 2)], Tower(features=features)
    view = make_view(tokens, grids=grids, vision=tower)
    for space, values in (("llm", tokens), ("vision", 2 * features)):
        answer = decide(methods("pooling")(space=space), view, 7)
        same(answer.indices, torch.tensor([block[1] for block in blocks]))
        assert answer.tokens is not None
        means = torch.stack([values[block].mean(0) for block in blocks])
        torch.testing.assert_close(answer.tokens, means)


def test_a_random_choice_in_the_tower_is_that_of_its_generator(methods: Methods) -> None:
    view = make_view(noise(12, 4), generator=torch.Generator().manual_seed(3), initial=20)
    method = methods("random-tower")()
    assert method.random
    same(method.select(view, 5), torch.randperm(12, generator=torch.Generator().manual_seed(3))[:5])


def test_hybrid_methods_are_those_of_the_taxonomy() -> None:
    hybrid = {name for name in METHODS.names() if METHODS.get(name).kind == "hybrid"}
    assert hybrid == {"mustdrop", "sparsevlm", "sparsevlm-v1", "sparsevlm-v2"}


def test_shares_round_halves_up(methods: Methods) -> None:
    """A core of 2.5 tokens is one of 3, as are 2.5 contextual tokens."""
    view = make_view(noise(20, 8), prompt=noise(2, 8))
    core = methods("zspaprune")(k=1).select(view, 3)
    same(methods("zspaprune")(k=0.5).select(view, 5)[:3], core)
    keys = (noise(20, 4), {"head_mean": True})
    view.vision = Tower(importance=noise(20), keys=keys, features=noise(20, 8))  # type: ignore[assignment]
    dominant = noise(20).argsort(descending=True)[:2].sort().values
    same(methods("visionzip")(contextual=0.5).select(view, 5).indices[:2], dominant)
