"""Which visual token of a prompt belongs to which image, and to which cell of its grid.

Placeholders of a row appear image after image, cell after cell. So one number, the token's rank among the row's visual
tokens, says everything once the images' sizes are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniprune.errors import UnsupportedError
from uniprune.view import Grid


@dataclass(frozen=True)
class Unit:
    """The visual tokens that one decision is about: an image, or all images of a prompt.

    Attributes:
        ordinal: number of the unit in its prompt. start, stop: ranks of its tokens among the prompt's visual tokens.
        grids: its grids (one per tile). images: where the vision tower's results of these grids are; empty if unknown.
    """

    ordinal: int
    start: int
    stop: int
    grids: tuple[Grid, ...]
    images: tuple[int, ...]


def runs(visual: Tensor) -> list[list[int]]:
    """Lengths of the contiguous runs of True in every row of `visual` [B, L]."""
    found = []
    for row in visual.cpu():
        _, lengths = torch.unique_consecutive(row, return_counts=True)
        starts_visual = bool(row[0]) if len(row) else False
        found.append(lengths[0 if starts_visual else 1 :: 2].tolist())
    return found


def image_units(visual: Tensor, grids: Sequence[Grid] | None, tiled: bool) -> list[list[Unit]]:
    """Units of every row, one per image.

    Args:
        visual: [B, L] True at placeholders.
        grids: grids of the encoded images in prompt order; images may have been encoded before rows were repeated for
            beams. None when the features came from outside: then every contiguous run is an image of unknown grid.
        tiled: whether the grids within one contiguous run are tiles of one image.

    Raises:
        UnsupportedError: the encoded images do not fill the placeholders.
    """
    rows = runs(visual)
    if grids is None:
        return [list(_number([[((1, 1, n), None)] for n in row])) for row in rows]
    sizes = [t * h * w for t, h, w in grids]
    wanted, encoded = sum(map(sum, rows)), sum(sizes)
    repeats, rest = divmod(wanted, encoded) if encoded else (0, wanted)
    if rest or not repeats or len(rows) % repeats:
        raise UnsupportedError(
            f"{wanted} visual placeholders do not match {encoded} encoded visual tokens; "
            "encode exactly the images of the prompt"
        )
    units: list[list[Unit]] = []
    position = 0
    for b, row in enumerate(rows):
        if b % repeats:
            units.append(units[-1])
            continue
        groups: list[list[tuple[Grid, int | None]]] = []
        for length in row:
            tiles: list[tuple[Grid, int | None]] = []
            while length > 0 and position < len(sizes):
                tiles.append((grids[position], position))
                length -= sizes[position]
                position += 1
            if length:
                raise UnsupportedError(
                    f"row {b} of the batch has a run of visual placeholders that no whole number of images fills"
                )
            groups += [tiles] if tiled else [[tile] for tile in tiles]
        units.append(list(_number(groups)))
    return units


def _number(groups: Sequence[Sequence[tuple[Grid, int | None]]]) -> Iterator[Unit]:
    """Units from groups of (grid, image index), placed one after the other."""
    start = 0
    for ordinal, group in enumerate(groups):
        stop = start + sum(t * h * w for (t, h, w), _ in group)
        yield Unit(ordinal, start, stop, tuple(g for g, _ in group), tuple(i for _, i in group if i is not None))
        start = stop


def whole_prompt(units: Sequence[Unit]) -> list[Unit]:
    """All units of a row as one."""
    if not units:
        return []
    grids = tuple(grid for unit in units for grid in unit.grids)
    return [Unit(0, 0, units[-1].stop, grids, tuple(i for unit in units for i in unit.images))]


def repeated_rows(embeds: Tensor) -> int:
    """How many copies of each prompt follow one another in `embeds` [B, L, D], as beams and returned sequences do.

    Equal inputs must get equal decisions in any case; the tolerance covers images encoded once per copy.
    """
    batch = embeds.shape[0]
    near = torch.isclose(embeds[1:], embeds[:-1], rtol=1e-3, atol=1e-5).flatten(1).all(1)
    same = [False, *near.tolist()]
    fits = (k for k in range(batch, 0, -1) if batch % k == 0 and all(same[b] for b in range(batch) if b % k))
    return next(fits)
