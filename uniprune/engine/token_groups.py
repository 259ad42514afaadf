"""Groups of visual tokens: the image each token belongs to, and its cell in the image's grids.

Placeholders of a row appear image after image. So one number, the placeholder's rank among those of its row, identifies
a token once the images' layouts are known.
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
from uniprune.modeling.origins import Origins
from uniprune.pruning.base import Scope
from uniprune.pruning.view import Grid


@dataclass(frozen=True)
class TokenGroup:
    """The visual tokens of one decision: an image, a part of one, or all images of a prompt.

    Attributes:
        ordinal: number of the group in its prompt.
        grids: (t, h, w) of its grids.
        ranks: [N] for every cell of the grids, the rank of the placeholder that holds it.
        origins: for every cell, the tokens of the vision tower's call that it is made of; None if unknown.
        markers: ranks of the group's placeholders that belong to no cell.
    """

    ordinal: int
    grids: tuple[Grid, ...]
    ranks: Tensor
    origins: Origins | None
    markers: Tensor


def runs(visual: Tensor) -> list[list[int]]:
    """Return the lengths of the contiguous runs of True in every row of `visual` [B, L], on the CPU."""
    found = []
    for row in visual:
        _, lengths = torch.unique_consecutive(row, return_counts=True)
        starts_visual = bool(row[0]) if len(row) else False
        found.append(lengths[0 if starts_visual else 1 :: 2].tolist())
    return found


def image_groups(visual: Tensor, layouts: Sequence[ImageLayout] | None, tiled: bool) -> list[list[TokenGroup]]:
    """Return the groups of every row, one per image.

    Args:
        visual: [B, L] True at placeholders, on the CPU.
        layouts: the encoded images in prompt order; images may have been encoded before rows were repeated for beams.
            None when the features came from outside: then every contiguous run is an image of unknown grid.
        tiled: whether the images within one contiguous run are tiles of one image.

    Raises:
        UnsupportedError: the encoded images do not fill the placeholders.
    """
    rows = runs(visual)
    if layouts is None:
        return [list(_numbered([[ImageLayout(((1, 1, n),))] for n in row])) for row in rows]
    sizes = [layout.placeholders for layout in layouts]
    wanted, encoded = sum(map(sum, rows)), sum(sizes)
    repeats, rest = divmod(wanted, encoded) if encoded else (0, wanted)
    if rest or not repeats or len(rows) % repeats:
        raise UnsupportedError(
            f"{wanted} visual placeholders do not match {encoded} encoded visual tokens; "
            "encode exactly the images of the prompt"
        )
    found: list[list[TokenGroup]] = []
    position = 0
    for b, row in enumerate(rows):
        if b % repeats:
            found.append(found[-1])
            continue
        images: list[list[ImageLayout]] = []
        for length in row:
            parts: list[ImageLayout] = []
            while length > 0 and position < len(sizes):
                parts.append(layouts[position])
                length -= sizes[position]
                position += 1
            if length:
                raise UnsupportedError(
                    f"row {b} of the batch has a run of visual placeholders that no whole number of images fills"
                )
            images += [parts] if tiled else [[part] for part in parts]
        found.append(list(_numbered(images)))
    return found


def _numbered(images: Sequence[Sequence[ImageLayout]]) -> Iterator[TokenGroup]:
    """Yield one group per image, given as the layouts of its parts, placed one after the other."""
    start = 0
    for ordinal, layouts in enumerate(images):
        parts = []
        for layout in layouts:
            ranks = torch.arange(start, start + layout.placeholders)
            start += layout.placeholders
            is_marker = layout.markers
            cells, markers = (ranks, ranks[:0]) if is_marker is None else (ranks[~is_marker], ranks[is_marker])
            parts.append(TokenGroup(ordinal, layout.grids, cells, layout.origins, markers))
        yield _joined(ordinal, parts)


def scoped(images: Sequence[TokenGroup], scope: Scope, encoded: Sequence[Grid] | None) -> list[TokenGroup]:
    """Return the groups of a scope from a row's `images`; `encoded` are the grids of the tower's call."""
    if scope == "prompt":
        return [_joined(0, images)] if images else []
    if scope == "image":
        return list(images)
    split = _grids_of if scope == "grid" else _tiles_of
    parts = [part for image in images for part in split(image, encoded or ())]
    return [replace(part, ordinal=number) for number, part in enumerate(parts)]


def _joined(ordinal: int, groups: Sequence[TokenGroup]) -> TokenGroup:
    """Join several groups into one."""
    if len(groups) == 1:
        return replace(groups[0], ordinal=ordinal)
    origins = [group.origins for group in groups if group.origins is not None]
    return TokenGroup(
        ordinal,
        tuple(grid for group in groups for grid in group.grids),
        torch.cat([group.ranks for group in groups]),
        Origins.joined(origins) if len(origins) == len(groups) else None,
        torch.cat([group.markers for group in groups]),
    )


def _grids_of(image: TokenGroup, encoded: Sequence[Grid]) -> Iterator[TokenGroup]:
    """Yield one part per grid; markers go with the last."""
    start = 0
    for grid, stop in zip(image.grids, accumulate(map(prod, image.grids)), strict=True):
        yield _part(image, torch.arange(start, stop), grid, last=stop == len(image.ranks))
        start = stop


def _tiles_of(image: TokenGroup, encoded: Sequence[Grid]) -> Iterator[TokenGroup]:
    """Yield one part per grid of the tower, cropped to what the prompt holds of it; markers go with the last.

    A cell between two tiles is part of the one that has the larger share in it.
    """
    if image.origins is None:
        raise UnsupportedError(
            "the image features were computed outside this session, so their tiles are unknown; pass pixel values, or "
            'use scope="image"'
        )
    stops = torch.tensor(list(accumulate(map(prod, encoded))))
    main = image.origins.main
    tile = image_of(main, encoded)
    numbers = tile.unique().tolist()
    for number in numbers:
        frames, height, width = encoded[number]
        cells = (tile == number).nonzero()[:, 0]
        inside = main[cells] - (stops[number] - frames * height * width)
        rows, columns = len((inside // width).unique()) // frames, len((inside % width).unique())
        yield _part(image, cells, (frames, rows, columns), last=number == numbers[-1])


def _part(image: TokenGroup, cells: Tensor, grid: Grid, last: bool) -> TokenGroup:
    origins = None if image.origins is None else image.origins.of(cells)
    return TokenGroup(image.ordinal, (grid,), image.ranks[cells], origins, image.markers if last else image.markers[:0])


def image_of(origins: Tensor, grids: Sequence[Grid]) -> Tensor:
    """Return the number of the grid that each token `origins` of a call with these `grids` belongs to."""
    return torch.bucketize(origins, torch.tensor(list(accumulate(map(prod, grids)))), right=True)
