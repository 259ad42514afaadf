"""Groups of visual tokens: the image each token belongs to, and its cell in the image's grids.

Placeholders of a row appear image after image. So one number, the placeholder's rank among those of its row, identifies
a token once the images' layouts are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, islice, pairwise
from math import prod

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.kept_tokens import Ints
from uniprune.errors import UnsupportedError
from uniprune.modeling.image_grouping import EncodedPrompt, Grouping, run_starts
from uniprune.modeling.image_layout import ImageLayout
from uniprune.modeling.origins import Origins
from uniprune.pruning.base import Scope
from uniprune.pruning.view import Grid, Tiles


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


def image_groups(
    ids: Tensor | None,
    visual: Tensor,
    layouts: Sequence[ImageLayout] | None,
    grouping: Grouping,
    fills: Sequence[int] | None = None,
) -> list[list[TokenGroup]]:
    """Return the groups of every row, one per image.

    Args:
        ids: [B, L] input ids, None for prompts given as embeddings; all tensors on the CPU.
        visual: [B, L] True at placeholders.
        layouts: the encoded grids in prompt order; images may have been encoded before rows were repeated for beams.
            None when the features came from outside: then every contiguous run is a grid of unknown size.
        grouping: the family's rule for which of them form an image.
        fills: placeholder id of every layout, if images and videos are in order for themselves only.

    Raises:
        UnsupportedError: the encoded images do not fill the placeholders.
    """
    places = [torch.from_numpy(row.nonzero()[0]) for row in visual.numpy()]
    if layouts is None:
        filled, repeats = [list(map(_unknown, _run_lengths(row))) for row in places], 1
    else:
        repeats = _repeats([len(row) for row in places], layouts)
        if fills is not None and ids is None:
            raise UnsupportedError("a prompt of images and videos cannot be given as embeddings; pass input_ids")
        kinds = [
            np.zeros(len(row), np.int64) if fills is None or ids is None else ids[b].numpy()[row]
            for b, row in enumerate(places)
        ]
        filled = list(_filled(kinds[::repeats], repeats, layouts, fills or [0] * len(layouts)))
    found: list[list[TokenGroup]] = []
    for number, parts in enumerate(filled):
        row = number * repeats
        sizes = [part.placeholders for part in parts]
        prompt = EncodedPrompt(row, None if ids is None else ids[row], places[row], sizes, layouts is not None)
        images = iter(parts)
        groups = list(_numbered([list(islice(images, count)) for count in grouping(prompt)]))
        found += [groups] * repeats
    return found


def _unknown(length: int) -> ImageLayout:
    """Return the layout of a run of placeholders whose grid is unknown."""
    return ImageLayout(((1, 1, length),))


def _run_lengths(places: Tensor) -> list[int]:
    """Return the lengths of the contiguous runs of the sorted positions `places` [P]."""
    return [stop - start for start, stop in pairwise([*run_starts(places), len(places)])]


def _repeats(counts: Sequence[int], layouts: Sequence[ImageLayout]) -> int:
    """Return how many rows, of so many placeholders each, share the images of one prompt."""
    wanted, encoded = sum(counts), sum(layout.placeholders for layout in layouts)
    repeats, rest = divmod(wanted, encoded) if encoded else (0, wanted)
    if rest or not repeats or len(counts) % repeats:
        raise UnsupportedError(
            f"{wanted} visual placeholders do not match {encoded} encoded visual tokens; "
            "encode exactly the images of the prompt"
        )
    return repeats


def _filled(
    kinds: Sequence[Ints], repeats: int, layouts: Sequence[ImageLayout], fills: Sequence[int]
) -> Iterator[list[ImageLayout]]:
    """Yield the layouts that fill the placeholders of every prompt, in order.

    Args:
        kinds: [P] for every prompt, the kind of each placeholder.
        repeats: rows per prompt, for messages.
        layouts: those of each kind in the order of the prompts.
        fills: the kind of every layout.
    """
    upcoming = {kind: iter([one for one, fill in zip(layouts, fills, strict=True) if fill == kind]) for kind in fills}
    for number, row in enumerate(kinds):
        parts: list[ImageLayout] = []
        rank = 0
        while rank < len(row):
            part = next(upcoming.get(int(row[rank]), iter(())), None)
            own = row[rank:] if part is None else row[rank : rank + part.placeholders]
            if part is None or len(own) < part.placeholders or not bool((own == own[0]).all()):
                raise UnsupportedError(
                    f"row {number * repeats} of the batch has visual placeholders that no whole number of images fills"
                )
            parts.append(part)
            rank += part.placeholders
        yield parts


def _numbered(images: Sequence[Sequence[ImageLayout]]) -> Iterator[TokenGroup]:
    """Yield one group per image, given as the layouts of its parts, placed one after the other."""
    start = 0
    for ordinal, layouts in enumerate(images):
        parts = []
        for layout in layouts:
            ranks = torch.from_numpy(np.arange(start, start + layout.placeholders))
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
    """Yield one part per grid, of a clip per frame; markers go with the last."""
    cells = torch.arange(len(image.ranks))
    frames = [(height, width) for frames, height, width in image.grids for _ in range(frames)]
    for (height, width), frame in zip(frames, cells.split(list(map(prod, frames))), strict=True):
        yield _part(image, frame, (1, height, width), last=bool(frame[-1] == cells[-1]))


def _tiles_of(image: TokenGroup, encoded: Sequence[Grid]) -> Iterator[TokenGroup]:
    """Yield one part per grid or frame of the tower, cropped to what the prompt has; markers go with the last.

    A cell between two tiles is part of the one that has the larger share in it.
    """
    tile, frames = tile_numbers(image, encoded), _frames(encoded)
    stops = torch.tensor(list(accumulate(map(prod, frames))))
    main = _known(image.origins).main
    numbers = tile.unique().tolist()
    for number in numbers:
        _, height, width = frames[number]
        cells = (tile == number).nonzero()[:, 0]
        inside = main[cells] - (stops[number] - height * width)
        rows, columns = len((inside // width).unique()), len((inside % width).unique())
        yield _part(image, cells, (1, rows, columns), last=number == numbers[-1])


def image_tiles(image: TokenGroup, encoded: Sequence[Grid], overview: int | None) -> Tiles | None:
    """Return the tiles of an image, all of its cells; None if no tile shows the whole of it and others its parts.

    Args:
        image: it may be a part of an image, or a clip.
        encoded: grids of the tower's call.
        overview: place of the family's tile that shows the whole image, 0 or -1; None if images are not cut.

    Raises:
        UnsupportedError: the tiles are unknown.
    """
    if overview is None or any(frames > 1 for frames, _, _ in image.grids):
        return None
    numbers = tile_numbers(image, encoded)
    numbers = numbers - numbers.min()
    last = int(numbers.max())
    return Tiles(numbers, last if overview else 0) if last else None


def tile_numbers(image: TokenGroup, encoded: Sequence[Grid]) -> Tensor:
    """Return [N] the number of the tower's tile, or frame, that each cell of an image is from.

    A cell between two tiles is from the one that has the larger share in it.

    Raises:
        UnsupportedError: the tiles are unknown.
    """
    return image_of(_known(image.origins).main, _frames(encoded))


def _known(origins: Origins | None) -> Origins:
    if origins is None:
        raise UnsupportedError(
            "the image features were computed outside this session, so their tiles are unknown; pass pixel values, or "
            'use scope="image" and a method that needs no tiles'
        )
    return origins


def _frames(encoded: Sequence[Grid]) -> list[Grid]:
    """Return the grids of a call, frame by frame."""
    return [(1, height, width) for frames, height, width in encoded for _ in range(frames)]


def _part(image: TokenGroup, cells: Tensor, grid: Grid, last: bool) -> TokenGroup:
    origins = None if image.origins is None else image.origins.of(cells)
    return TokenGroup(image.ordinal, (grid,), image.ranks[cells], origins, image.markers if last else image.markers[:0])


def image_of(origins: Tensor, grids: Sequence[Grid]) -> Tensor:
    """Return the number of the grid that each token `origins` of a call with these `grids` belongs to."""
    return torch.bucketize(origins, torch.tensor(list(accumulate(map(prod, grids)))), right=True)
