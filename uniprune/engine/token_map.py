"""Which visual token of a prompt belongs to which image, and to which cell of its grids.

Placeholders of a row appear image after image. So one number, the placeholder's rank among those of its row, says
everything once the images' layouts are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod

import torch
from torch import Tensor

from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import ImageLayout
from uniprune.pruning.base import Scope
from uniprune.pruning.view import Grid


@dataclass(frozen=True)
class TokenGroup:
    """The visual tokens that one decision is about: an image, a part of one, or all images of a prompt.

    Attributes:
        ordinal: number of the unit in its prompt. grids: its grids.
        ranks: [N] for every cell of the grids, which placeholder of the prompt holds it.
        origins: [N] for every cell, which token of the vision tower's call it is; None if unknown.
        markers: ranks of the unit's placeholders that belong to no cell.
    """

    ordinal: int
    grids: tuple[Grid, ...]
    ranks: Tensor
    origins: Tensor | None
    markers: Tensor


def runs(visual: Tensor) -> list[list[int]]:
    """Lengths of the contiguous runs of True in every row of `visual` [B, L], which lies on the host."""
    found = []
    for row in visual:
        _, lengths = torch.unique_consecutive(row, return_counts=True)
        starts_visual = bool(row[0]) if len(row) else False
        found.append(lengths[0 if starts_visual else 1 :: 2].tolist())
    return found


def image_units(visual: Tensor, pictures: Sequence[ImageLayout] | None, tiled: bool) -> list[list[TokenGroup]]:
    """Units of every row, one per image.

    Args:
        visual: [B, L] True at placeholders, on the host.
        pictures: the encoded images in prompt order; images may have been encoded before rows were repeated for beams.
            None when the features came from outside: then every contiguous run is an image of unknown grid.
        tiled: whether the pictures within one contiguous run are tiles of one image.

    Raises:
        UnsupportedError: the encoded images do not fill the placeholders.
    """
    rows = runs(visual)
    if pictures is None:
        return [list(_number([[ImageLayout(((1, 1, n),))] for n in row])) for row in rows]
    sizes = [picture.placeholders for picture in pictures]
    wanted, encoded = sum(map(sum, rows)), sum(sizes)
    repeats, rest = divmod(wanted, encoded) if encoded else (0, wanted)
    if rest or not repeats or len(rows) % repeats:
        raise UnsupportedError(
            f"{wanted} visual placeholders do not match {encoded} encoded visual tokens; "
            "encode exactly the images of the prompt"
        )
    units: list[list[TokenGroup]] = []
    position = 0
    for b, row in enumerate(rows):
        if b % repeats:
            units.append(units[-1])
            continue
        groups: list[list[ImageLayout]] = []
        for length in row:
            found: list[ImageLayout] = []
            while length > 0 and position < len(sizes):
                found.append(pictures[position])
                length -= sizes[position]
                position += 1
            if length:
                raise UnsupportedError(
                    f"row {b} of the batch has a run of visual placeholders that no whole number of images fills"
                )
            groups += [found] if tiled else [[picture] for picture in found]
        units.append(list(_number(groups)))
    return units


def _number(groups: Sequence[Sequence[ImageLayout]]) -> Iterator[TokenGroup]:
    """Units from groups of pictures, placed one after the other."""
    start = 0
    for ordinal, group in enumerate(groups):
        parts = []
        for picture in group:
            ranks = torch.arange(start, start + picture.placeholders)
            start += picture.placeholders
            marked = picture.markers
            cells, markers = (ranks, ranks[:0]) if marked is None else (ranks[~marked], ranks[marked])
            parts.append(TokenGroup(ordinal, picture.grids, cells, picture.origins, markers))
        yield _joined(ordinal, parts)


def scoped(units: Sequence[TokenGroup], scope: Scope, encoded: Sequence[Grid] | None) -> list[TokenGroup]:
    """What decisions are about under a scope: `units` are a row's images, `encoded` the grids of the tower's call."""
    if scope == "prompt":
        return [_joined(0, units)] if units else []
    if scope == "image":
        return list(units)
    split = _grids_of if scope == "grid" else _tiles_of
    parts = [part for unit in units for part in split(unit, encoded or ())]
    return [TokenGroup(i, part.grids, part.ranks, part.origins, part.markers) for i, part in enumerate(parts)]


def _joined(ordinal: int, units: Sequence[TokenGroup]) -> TokenGroup:
    """Several units as one."""
    if len(units) == 1:
        return replace(units[0], ordinal=ordinal)
    origins = [unit.origins for unit in units if unit.origins is not None]
    return TokenGroup(
        ordinal,
        tuple(grid for unit in units for grid in unit.grids),
        torch.cat([unit.ranks for unit in units]),
        torch.cat(origins) if len(origins) == len(units) else None,
        torch.cat([unit.markers for unit in units]),
    )


def _grids_of(unit: TokenGroup, encoded: Sequence[Grid]) -> Iterator[TokenGroup]:
    """One part per grid; markers go with the last."""
    start = 0
    for grid, stop in zip(unit.grids, accumulate(map(prod, unit.grids)), strict=True):
        yield _part(unit, torch.arange(start, stop), grid, last=stop == len(unit.ranks))
        start = stop


def _tiles_of(unit: TokenGroup, encoded: Sequence[Grid]) -> Iterator[TokenGroup]:
    """One part per grid of the tower, as large as what is left of it; markers go with the last."""
    if unit.origins is None:
        raise UnsupportedError(
            "the image features were computed outside this session, so their tiles are unknown; pass pixel values, or "
            'use scope="image"'
        )
    stops = torch.tensor(list(accumulate(map(prod, encoded))))
    tile = image_of(unit.origins, encoded)
    numbers = tile.unique().tolist()
    for number in numbers:
        frames, height, width = encoded[number]
        cells = (tile == number).nonzero()[:, 0]
        inside = unit.origins[cells] - (stops[number] - frames * height * width)
        rows, columns = len((inside // width).unique()) // frames, len((inside % width).unique())
        yield _part(unit, cells, (frames, rows, columns), last=number == numbers[-1])


def _part(unit: TokenGroup, cells: Tensor, grid: Grid, last: bool) -> TokenGroup:
    origins = None if unit.origins is None else unit.origins[cells]
    return TokenGroup(unit.ordinal, (grid,), unit.ranks[cells], origins, unit.markers if last else unit.markers[:0])


def image_of(origins: Tensor, grids: Sequence[Grid]) -> Tensor:
    """Which of `grids`, those of a call, each of its tokens `origins` belongs to."""
    return torch.bucketize(origins, torch.tensor(list(accumulate(map(prod, grids)))), right=True)


def repeated_rows(embeds: Tensor) -> int:
    """How many copies of each prompt follow one another in `embeds` [B, L, D], as beams and returned sequences do.

    Equal inputs must get equal decisions in any case; the tolerance covers images encoded once per copy.
    """
    batch = embeds.shape[0]
    near = torch.isclose(embeds[1:], embeds[:-1], rtol=1e-3, atol=1e-5).flatten(1).all(1)
    same = [False, *near.tolist()]
    fits = (k for k in range(batch, 0, -1) if batch % k == 0 and all(same[b] for b in range(batch) if b % k))
    return next(fits)
