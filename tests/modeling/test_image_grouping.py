"""Rules for which encoded grids form an image, from ids and placeholders."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from uniprune.engine.token_groups import image_groups, scoped
from uniprune.errors import UnsupportedError
from uniprune.modeling.image_grouping import EncodedPrompt, any_runs, one_run, tiles_in_a_run
from uniprune.modeling.image_layout import ImageLayout
from uniprune.modeling.origins import Origins

RUNS = torch.tensor([2, 3, 4, 5, 8, 9, 10, 11, 12, 13])
"""Places of two runs, of four and of six placeholders."""


def prompt(*sizes: int, known: bool = True) -> EncodedPrompt:
    return EncodedPrompt(0, None, RUNS, list(sizes), known)


def test_rules_count_the_grids_of_each_image() -> None:
    assert one_run(prompt(4, 6)) == [1, 1]
    assert one_run(prompt(2, 2, 6)) == [1, 1, 1]
    assert tiles_in_a_run(prompt(2, 2, 3, 2, 1)) == [2, 3]
    assert any_runs(prompt(3, 7)) == [1, 1]


@pytest.mark.parametrize("rule", [one_run, tiles_in_a_run])
def test_runs_must_be_filled_by_whole_grids(rule: object) -> None:
    for sizes in ((10,), (3, 7), (2, 3, 5)):
        with pytest.raises(UnsupportedError, match=r"row 0 of the batch has a run .* no whole number of images"):
            rule(prompt(*sizes))  # type: ignore[operator]


def test_unknown_grids_are_runs_and_nothing_else() -> None:
    assert one_run(prompt(4, 6, known=False)) == tiles_in_a_run(prompt(4, 6, known=False)) == [1, 1]
    with pytest.raises(UnsupportedError, match="unknown which runs of placeholders make up an image"):
        any_runs(prompt(4, 6, known=False))


@pytest.mark.parametrize("rule", [one_run, tiles_in_a_run, any_runs])
def test_a_prompt_without_images_has_none(rule: object) -> None:
    empty = replace(prompt(), places=RUNS[:0])
    assert rule(empty) == rule(replace(empty, known=False)) == []  # type: ignore[operator]


def test_ranks_of_an_image_go_on_after_text() -> None:
    """Rows of a batch, the first without images, and two beams of the second."""
    visual = torch.zeros(4, 14, dtype=torch.bool)
    visual[2:, RUNS] = True
    layouts = [ImageLayout(((1, 2, 4),)), ImageLayout(((2, 1, 1),))]
    for given in (layouts, layouts * 2):  # encoded once, or once per beam
        none, _, first, second = image_groups(None, visual, given, any_runs)
        assert none == []
        for row in (first, second):
            assert [group.ranks.tolist() for group in row] == [[*range(8)], [8, 9]]
    with pytest.raises(UnsupportedError, match="10 visual placeholders do not match 8 encoded"):
        image_groups(None, visual[:3], layouts[:1], any_runs)
    sizes = (8, 2, 2, 8, 9, 2, 1, 8)
    mixed = [ImageLayout(((1, 1, size),)) for size in sizes]
    with pytest.raises(UnsupportedError, match="row 2 of the batch has visual placeholders that no whole number"):
        image_groups(None, visual[[2, 2, 2, 2]], mixed, any_runs)


def test_scopes_of_a_clip() -> None:
    """The clip is an image; grids and tiles are its frames."""
    visual = torch.ones(1, 24, dtype=torch.bool)
    clip = ImageLayout(((3, 2, 4),), Origins.single(torch.arange(24)))
    [[image]] = image_groups(None, visual, [clip], one_run)
    assert [group.grids for group in scoped([image], "image", [(3, 2, 4)])] == [((3, 2, 4),)]
    for scope in ("grid", "tile"):
        frames = scoped([image], scope, [(3, 2, 4)])  # type: ignore[arg-type]
        assert [frame.grids for frame in frames] == [((1, 2, 4),)] * 3
        assert [frame.ranks.tolist() for frame in frames] == [[*range(start, start + 8)] for start in (0, 8, 16)]
        assert all(frame.origins is not None and torch.equal(frame.ranks, frame.origins.main) for frame in frames)
