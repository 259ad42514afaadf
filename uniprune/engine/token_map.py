"""Map of a batch: its visual tokens, the image each belongs to, and its cell in the image's grids.

Placeholders of a row appear image after image. So one number, the placeholder's rank among those of its row, identifies
a token once the images' layouts are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import accumulate
from math import prod
from operator import or_
from typing import Any

import torch
from torch import Tensor

from uniprune.engine.compaction import KeptTokens, to_host
from uniprune.engine.question import PromptInfo
from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import ImageLayout, ModelAdapter
from uniprune.pruning.base import Scope
from uniprune.pruning.view import Grid

PIXELS = ("pixel_values", "pixel_values_videos")
"""Arguments of a forward that carry images or videos."""


# --- from arguments of a forward to tokens ----------------------------------------------------------------------
@dataclass(frozen=True)
class Tokens:
    """A batch's un-pruned sequences, on the CPU.

    Attributes:
        ids: [B, L] input ids, None for prompts given as embeddings.
        visual: [B, L] True at visual placeholders.
        real: [B, L] False at padding.
    """

    ids: Tensor | None
    visual: Tensor
    real: Tensor

    @cached_property
    def visual_counts(self) -> list[int]:
        """Visual placeholders of every row."""
        counts: list[int] = self.visual.sum(1).tolist()
        return counts

    @cached_property
    def unpruned(self) -> KeptTokens:
        """All columns, padding included."""
        batch, width = self.real.shape
        return KeptTokens(0, torch.arange(width).repeat(batch, 1), self.real, tuple(self.real.sum(1).tolist()))


def visual_inputs(kwargs: dict[str, Any]) -> list[str]:
    """Return the names of the visual inputs a forward carries: pixels, or features encoded before it."""
    encoded = [name for name, output in (kwargs.get("mm_encoder_outputs") or {}).items() if output is not None]
    return encoded + [name for name in PIXELS if kwargs.get(name) is not None]


def placeholders(adapter: ModelAdapter, kwargs: dict[str, Any]) -> Tensor:
    """Return [B, L], True at image and video placeholders, on the device of the forward's inputs."""
    if kwargs.get("input_ids") is not None:
        return marked(kwargs["input_ids"], adapter.visual_token_ids)
    embeds: Tensor = kwargs["inputs_embeds"]
    table: Tensor = adapter.model.get_input_embeddings().weight
    return (embeds.unsqueeze(2) == table[adapter.visual_token_ids].to(embeds.device)).all(-1).any(-1)


def marked(ids: Tensor, wanted: Sequence[int]) -> Tensor:
    """Return True where `ids` are among a few `wanted` ones."""
    return reduce(or_, [ids == one for one in wanted])


def valid_tokens(mask: Any, length: int) -> Tensor | None:
    """Return [B or 1, L], False (or 0) at padding, from any form of attention mask; None without one."""
    if isinstance(mask, dict):
        mask = next(iter(mask.values()))
    if mask is None or mask.dim() == 2:
        valid: Tensor | None = mask
        return valid
    # Already built (static cache): the last query row sees exactly the valid tokens.
    last: Tensor = mask[:, 0, -1, :length]
    return last.clone() if last.dtype == torch.bool else last == 0


class PrefillInputs:
    """Ids, mask and kind of visual input of a forward on an empty cache; holds nothing else of it.

    Args:
        adapter: the model's adapter.
        infos: identities of the prompts, or none.
        kwargs: arguments of the forward.

    Attributes:
        infos: as given.
        has_visual: whether the forward carries images or videos.

    Raises:
        UnsupportedError: the forward carries images and videos.
    """

    def __init__(self, adapter: ModelAdapter, infos: tuple[PromptInfo, ...], kwargs: dict[str, Any]) -> None:
        carried = visual_inputs(kwargs)
        if len(carried) > 1:
            raise UnsupportedError("images and videos in one prompt are not supported; pass one kind of visual input")
        self.infos, self.has_visual = infos, bool(carried)
        self._has_ids = kwargs.get("input_ids") is not None
        self._first = kwargs["input_ids"] if self._has_ids else placeholders(adapter, kwargs)
        self._mask = valid_tokens(kwargs.get("attention_mask"), self._first.shape[1])
        self._visual_ids = adapter.visual_token_ids

    @cached_property
    def tokens(self) -> Tokens:
        """The batch's tokens, copied to the CPU on first use: a prefill that cannot prune costs no transfer."""
        first, *masks = to_host([self._first] if self._mask is None else [self._first, self._mask])
        visual = marked(first, self._visual_ids) if self._has_ids else first.bool()
        if not self.has_visual:  # a model can *generate* the image id: without image inputs it is text
            visual = torch.zeros_like(visual)
        real = masks[0].bool().expand_as(visual) if masks else torch.ones_like(visual)
        return Tokens(first if self._has_ids else None, visual, real)


def repeated_rows(embeds: Tensor) -> int:
    """Return how many copies of each prompt follow one another in `embeds` [B, L, D], as beams and samples do.

    Equal inputs must get equal decisions in any case; the tolerance covers images encoded once per copy.
    """
    batch = embeds.shape[0]
    near = torch.isclose(embeds[1:], embeds[:-1], rtol=1e-3, atol=1e-5).flatten(1).all(1)
    same = [False, *near.tolist()]
    fits = (k for k in range(batch, 0, -1) if batch % k == 0 and all(same[b] for b in range(batch) if b % k))
    return next(fits)


# --- from tokens to images and their cells ----------------------------------------------------------------------
@dataclass(frozen=True)
class TokenGroup:
    """The visual tokens of one decision: an image, a part of one, or all images of a prompt.

    Attributes:
        ordinal: number of the group in its prompt.
        grids: (t, h, w) of its grids.
        ranks: [N] for every cell of the grids, the rank of the placeholder that holds it.
        origins: [N] for every cell, its token in the vision tower's call; None if unknown.
        markers: ranks of the group's placeholders that belong to no cell.
    """

    ordinal: int
    grids: tuple[Grid, ...]
    ranks: Tensor
    origins: Tensor | None
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
        torch.cat(origins) if len(origins) == len(groups) else None,
        torch.cat([group.markers for group in groups]),
    )


def _grids_of(image: TokenGroup, encoded: Sequence[Grid]) -> Iterator[TokenGroup]:
    """Yield one part per grid; markers go with the last."""
    start = 0
    for grid, stop in zip(image.grids, accumulate(map(prod, image.grids)), strict=True):
        yield _part(image, torch.arange(start, stop), grid, last=stop == len(image.ranks))
        start = stop


def _tiles_of(image: TokenGroup, encoded: Sequence[Grid]) -> Iterator[TokenGroup]:
    """Yield one part per grid of the tower, cropped to what the prompt holds of it; markers go with the last."""
    if image.origins is None:
        raise UnsupportedError(
            "the image features were computed outside this session, so their tiles are unknown; pass pixel values, or "
            'use scope="image"'
        )
    stops = torch.tensor(list(accumulate(map(prod, encoded))))
    tile = image_of(image.origins, encoded)
    numbers = tile.unique().tolist()
    for number in numbers:
        frames, height, width = encoded[number]
        cells = (tile == number).nonzero()[:, 0]
        inside = image.origins[cells] - (stops[number] - frames * height * width)
        rows, columns = len((inside // width).unique()) // frames, len((inside % width).unique())
        yield _part(image, cells, (frames, rows, columns), last=number == numbers[-1])


def _part(image: TokenGroup, cells: Tensor, grid: Grid, last: bool) -> TokenGroup:
    origins = None if image.origins is None else image.origins[cells]
    return TokenGroup(image.ordinal, (grid,), image.ranks[cells], origins, image.markers if last else image.markers[:0])


def image_of(origins: Tensor, grids: Sequence[Grid]) -> Tensor:
    """Return the number of the grid that each token `origins` of a call with these `grids` belongs to."""
    return torch.bucketize(origins, torch.tensor(list(accumulate(map(prod, grids)))), right=True)
