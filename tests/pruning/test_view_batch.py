"""Batches of views made by hand: each quantity is that of the views, with one more dimension in front."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.views import SYSTEM, Rows, Tower, llm_view, make_view, noise
from uniprune.errors import UserError
from uniprune.methods.divprune import DivPrune
from uniprune.pruning.base import Pruner
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch

N, D, HEADS, TEXT = 5, 4, 2, 3


def view(number: int) -> View:
    """Return a view inside the model, with a tower."""
    random = torch.Generator().manual_seed(number)
    keys = {"visual": torch.rand(N, 6, generator=random), "text": torch.rand(TEXT, 6, generator=random)}
    rows = Rows(torch.rand(HEADS, TEXT, N, generator=random), keys, prior=torch.rand(TEXT, N, generator=random))
    quantities = {"importance": (N,), "received": (N,), "exchanged": (2, N), "cls": (HEADS, N), "cls_tokens": (1, 6)}
    features = dict.fromkeys(("keys", "hidden", "features"), (N, 6))
    tower = Tower(**{name: torch.rand(*shape, generator=random) for name, shape in (quantities | features).items()})
    tokens, prompt = torch.rand(N, D, generator=random), torch.rand(number + 1, D, generator=random)
    return llm_view(tokens, rows, vision=tower, prompt=prompt, text=torch.rand(SYSTEM + TEXT, D, generator=random))


def alike(found: Any, expected: list[Tensor]) -> bool:
    """Check whether the parts of a batch's value are those of the views, bit for bit."""
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.tokens,
        lambda x: x.cells,
        lambda x: x.prompt,
        lambda x: x.text,
        lambda x: x.following,
        lambda x: x.attention("last"),
        lambda x: x.attention("visual"),
        lambda x: x.upcoming("text"),
        lambda x: x.attention.keys("visual"),
        lambda x: x.vision.importance(),
        lambda x: x.vision.importance(3, joint=True),
        lambda x: x.vision.received(1),
        lambda x: x.vision.exchanged(),
        lambda x: x.vision.cls(),
        lambda x: x.vision.cls_tokens(),
        lambda x: x.vision.keys(2, head_mean=True),
        lambda x: x.vision.hidden(),
        lambda x: x.features("vision"),
        lambda x: x.features("llm"),
    ],
)
def test_quantities_are_those_of_the_views(read: Callable[[Any], Any]) -> None:
    views = [view(number) for number in range(3)]
    assert alike(read(ViewBatch(views)), [read(one) for one in views])


def test_rows_by_number() -> None:
    views, rows = [view(0), view(1)], [torch.tensor([4, 3]), torch.tensor([5, 4])]
    batch = ViewBatch(views)
    for read in (lambda x: x, lambda x: x.keys, lambda x: x.rotary_prior):
        expected = [read(one.attention)(own) for one, own in zip(views, rows, strict=True)]
        assert alike(read(batch.attention)(rows), expected)


@pytest.mark.parametrize("space", ["vision", "llm"])
def test_projected_features(space: Any) -> None:
    views, features = [view(0), view(1)], noise(2, 3, D)
    expected = [one.project(own, space) for one, own in zip(views, features, strict=True)]
    assert alike(ViewBatch(views).project(features, space), expected)


def test_generators_are_those_of_the_views() -> None:
    views = [view(0), view(1)]
    assert ViewBatch(views).generators == [one.generator for one in views]
    assert len(ViewBatch(views)) == 2 and ViewBatch(views).vision.patches == 1


def test_views_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"equally many tokens, got \[5, 4\]"):
        ViewBatch([make_view(noise(5, D)), make_view(noise(4, D))])


def test_an_image_at_the_end_of_a_prompt_is_refused() -> None:
    with pytest.raises(UserError, match="the prompt ends with its image"):
        _ = ViewBatch([make_view(noise(5, D))]).following


def test_methods_decide_one_by_one_unless_they_say_otherwise() -> None:
    assert Pruner.select_batch(DivPrune(), ViewBatch([make_view(noise(5, D))]), 2) is None
