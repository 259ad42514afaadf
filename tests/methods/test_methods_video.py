"""Methods for video with images, short budgets, tiles and views where nothing stands out."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.golden_cases import Methods
from tests.helpers.views import Tower, decide, make_view
from uniprune.errors import UnsupportedError, UserError
from uniprune.pruning.base import Selection
from uniprune.pruning.view import Grid, View

ALL = pytest.mark.parametrize("name", ["evs", "vidcom2", "fastvid", "flashvid"])


def view_of(*grids: Grid, kind: str = "random") -> View:
    """A view of random, equal or zero tokens."""
    count = sum(t * h * w for t, h, w in grids)
    drawn = torch.randn(count, 12, generator=torch.Generator().manual_seed(count))
    tokens = {"random": drawn, "equal": torch.ones_like(drawn), "zero": torch.zeros_like(drawn)}[kind]
    attention = {"random": drawn[:, 0].abs() + 0.1, "equal": torch.ones(count), "zero": torch.zeros(count)}[kind]
    return make_view(tokens, grids=list(grids), vision=Tower(received=attention))


def test_evs_keeps_an_image_whole(methods: Methods) -> None:
    """So does the release; with exact counts there is nothing by which to choose."""
    view = view_of((1, 3, 4))
    assert methods("evs")(ratio=0.25).select(view, 3).tolist() == list(range(12))
    with pytest.raises(UserError, match=r"first of 1 frames whole, 12 tokens, but 3 are the budget; .* at least 1,"):
        methods("evs")(ratio=0.25, counts="exact").select(view, 3)


def test_evs_counts(methods: Methods) -> None:
    """The release's product of floats, its floor of one frame, and the refusal of less with exact counts."""
    view = view_of((20, 2, 5))
    assert len(methods("evs")(ratio=0.1).select(view, 20)) == 19
    assert methods("evs")(ratio=0.02).select(view, 4).tolist() == list(range(10))
    exact = methods("evs")(ratio=0.1, counts="exact")
    assert len(decide(exact, view, 20).indices) == 20
    with pytest.raises(UserError, match=r"use a ratio of at least 0\.05"):
        exact.select(view, 9)


def test_evs_keeps_what_changes(methods: Methods) -> None:
    """One cell of the third frame changes, and changes back."""
    view = view_of((4, 2, 3), kind="equal")
    view.tokens[2 * 6 + 4] *= torch.tensor([1, -1]).repeat(6)
    kept = decide(methods("evs")(ratio=8 / 24, counts="exact"), view, 8).indices
    assert kept.tolist() == [*range(6), 2 * 6 + 4, 3 * 6 + 4]


def test_vidcom2_takes_an_image_for_a_frame(methods: Methods) -> None:
    """Its least typical tokens stay; the release prunes no images."""
    view = view_of((1, 3, 4), kind="equal")
    view.tokens[[2, 7, 11]] = view_of((1, 1, 3)).tokens
    assert decide(methods("vidcom2")(ratio=0.25), view, 3).indices.tolist() == [2, 7, 11]
    assert sorted(methods("vidcom2")(ratio=0.25, counts="release").select(view, 3).tolist()) == [2, 7, 11]


def test_vidcom2_rounds_halves_to_even(methods: Methods) -> None:
    for size, want in ((10, 2), (14, 4)):
        assert len(methods("vidcom2")(ratio=0.25, counts="release").select(view_of((1, 1, size)), 1)) == want


def test_vidcom2_gives_more_to_a_frame_unlike_the_rest(methods: Methods) -> None:
    view = view_of((4, 4, 4), kind="equal")
    view.tokens[16:32] = view_of((1, 4, 4)).tokens
    kept = decide(methods("vidcom2")(ratio=0.25), view, 16).indices
    assert (kept // 16).bincount(minlength=4).argmax() == 1


@ALL
def test_several_grids_are_refused(name: str, methods: Methods) -> None:
    """Tiles, images of a prompt, or GLM's frames: which of them, the view does not show."""
    with pytest.raises(UnsupportedError, match="frames of one video, but the view holds 2 grids"):
        methods(name)(ratio=0.5).select(view_of((1, 2, 3), (1, 2, 3)), 6)


@ALL
@pytest.mark.parametrize("scope", ["grid", "tile"])
def test_scopes_of_single_frames_are_refused(name: str, scope: str, methods: Methods) -> None:
    with pytest.raises(UserError, match=f"which scope={scope} decides one by one; use scope=image"):
        methods(name)(ratio=0.5, scope=scope)


@ALL
def test_ratio_1_prunes_nowhere(name: str, methods: Methods) -> None:
    for counts in ("exact", "release"):
        assert methods(name)(counts=counts).schedule(32) == ()
        assert len(methods(name)(ratio=0.5, counts=counts).schedule(32)) == 1
    assert not methods(name)().prompt_aware


@ALL
@pytest.mark.parametrize("kind", ["random", "equal", "zero"])
def test_the_answer_is_what_was_asked_for(name: str, kind: str, methods: Methods) -> None:
    for grid in ((1, 1, 1), (2, 1, 1), (1, 2, 3), (3, 2, 2), (5, 1, 3)):
        view = view_of(grid, kind=kind)
        count = len(view.tokens)
        for keep in range(count // grid[0] if name == "evs" else 1, count + 1):
            decide(methods(name)(ratio=keep / count, counts="exact"), view, keep)
            released = methods(name)(ratio=keep / count, counts="release").select(view, keep)
            indices = released.indices if isinstance(released, Selection) else released
            assert len(set(indices.tolist())) == len(indices) > 0
