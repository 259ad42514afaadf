"""Kept visual tokens of rows, as reported by the engine, over the areas of the pictures that they show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from uniprune.engine import RowReport
from uniprune.engine.token_groups import TokenGroup
from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.messages import Part
from uniprune.modeling.shown_areas import Shown, areas_of_tokens
from uniprune.results.kept_tokens import KeptCells, Selections, ShownGrid, joined

AreasOf = Callable[[Any, Sequence[Part], bool], tuple[Shown, ...]]
"""A function from a processor, a message and whether its images are processed one by one to what its media show."""


def areas_of(adapter: ModelAdapter) -> AreasOf:
    """Return the function of a model; images come before clips, as the tower gets them."""

    def found(processor: Any, parts: Sequence[Part], one_by_one: bool) -> tuple[Shown, ...]:
        images = [part.image for part in parts if part.image is not None]
        clips = [part.clip for part in parts if part.clip is not None]
        count = 1 if one_by_one else len(images)
        sizes = [(image.height, image.width) for image in images]
        shown = [Shown(tuple(adapter.image_areas(processor, size, count))) for size in sizes]
        for clip in clips:
            first = clip.images[0]
            shown.append(adapter.clip_areas(processor, (first.height, first.width), len(clip.images)))
        return tuple(shown)

    return found


@dataclass(frozen=True)
class _Medium:
    """An image or clip among those of the tower's call.

    Attributes:
        row: its row in the batch.
        first: number of its first picture in the row.
        shown: what its grids show.
    """

    row: int
    first: int
    shown: Shown


def selections(reports: Sequence[RowReport], rows: Sequence[Sequence[Shown]]) -> list[Selections]:
    """Return the kept tokens of the rows of a batch.

    Args:
        reports: the engine's.
        rows: for every row what its images, then its clips, show.

    Raises:
        UnsupportedError: the tower encoded other grids than described.
    """
    media = [
        _Medium(number, sum(shown.pictures for shown in row[:place]), one)
        for clips in (False, True)  # the tower gets the images of all rows, then their clips
        for number, row in enumerate(rows)
        for place, one in enumerate(row)
        if bool(one.step) is clips
    ]
    areas = [area for medium in media for area in medium.shown.areas]
    owners = [medium for medium in media for _ in medium.shown.areas]
    return [_row(report, number, areas, owners) for number, report in enumerate(reports)]


def _row(report: RowReport, row: int, areas: Sequence[Any], owners: Sequence[_Medium]) -> Selections:
    tower = report.tower or ()
    if report.groups and len(tower) != len(areas):
        raise UnsupportedError(
            f"the vision tower encoded {len(tower)} grids, but its processor's settings describe {len(areas)}, so it "
            "is unknown which area of a picture each token shows; leave out --keep-selections and report this model"
        )
    steps: dict[int, int] = {}
    grids = [
        _grid(size, origins, tower, areas, owners, steps, row)
        for group in report.groups
        for size, origins in _parts(group)
    ]
    counts = [len(group.ranks) for group in report.groups]
    return Selections(
        grids=grids,
        stages=[
            KeptCells.of(stage.layer, joined([_mask(kept, n) for kept, n in zip(stage.kept, counts, strict=True)]))
            for stage in (report.stages if grids else ())  # of text there is no choice, whatever the batch has
        ],
    )


def _mask(kept: Tensor, tokens: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(tokens, bool)
    mask[kept.numpy()] = True
    return mask


def _parts(group: TokenGroup) -> Iterator[tuple[tuple[int, int, int], Tensor]]:
    """Yield the grids of a group with the tower's tokens [N, k] that their cells are made of, -1 for none.

    Raises:
        UnsupportedError: the tokens are unknown.
    """
    if group.origins is None:
        raise UnsupportedError(
            "the image features were computed outside this session, so it is unknown what their tokens show"
        )
    index = group.origins.index.where(group.origins.shares > 0, -1)
    yield from zip(group.grids, index.split(list(map(prod, group.grids))), strict=True)


def _grid(
    size: tuple[int, int, int],
    origins: Tensor,
    tower: Sequence[tuple[int, int, int]],
    areas: Sequence[Any],
    owners: Sequence[_Medium],
    steps: dict[int, int],
    row: int,
) -> ShownGrid:
    """Return a grid of the row with the area around all of its tokens; `steps` counts those in time of every clip."""
    tokens = origins[origins >= 0].unique()
    found = areas_of_tokens(areas, tower, tokens)
    edges = (*found[:, :2].amin(0).tolist(), *found[:, 2:].amax(0).tolist())
    stops = torch.tensor(list(accumulate(map(prod, tower))))
    owner = owners[int(torch.bucketize(tokens[0], stops, right=True))]
    assert owner.row == row, "a row's tokens are made of another row's image"
    shown = owner.shown
    first = steps.get(id(owner), 0)
    steps[id(owner)] = first + size[0]
    pictures = [owner.first + min((first + step) * shown.step, shown.pictures - 1) for step in range(size[0])]
    left, top, right, bottom = (round(edge, 5) for edge in edges)
    return ShownGrid(size=size, area=(left, top, right, bottom), pictures=pictures)
