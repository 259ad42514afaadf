"""A stage before a block of the vision tower: which patches stay, and what the tower's blocks get of them.

The model's code around the blocks needs as many places as there are patches. So the states of the last block whose
output it uses are put back to their places, zeros at those of dropped patches. Their tokens never reach the language
model: the prefill drops them before its layer 0, see `decided_in_tower`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.checks import check_undrawn, random_states, undisturbed
from uniprune.engine.decisions import Answer, choose, settle
from uniprune.engine.dropping import Decided
from uniprune.engine.host_copy import sent
from uniprune.engine.kept_tokens import Ints
from uniprune.engine.prompt import Prompt
from uniprune.engine.stage_groups import StageGroups, StageInput
from uniprune.errors import PruningError, UnsupportedError
from uniprune.modeling.adapter import ModelAdapter, consecutive
from uniprune.modeling.tower_work import DroppedPatches, TowerWork
from uniprune.pruning.base import Stage
from uniprune.pruning.budget import keep_count
from uniprune.pruning.view import Grid, View
from uniprune.utils.hashing import seeded_generator

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
PACKED = {"hidden_states", "cu_seqlens", "max_seqlen", "position_embeddings"}
"""Arguments of blocks of packed towers that hold tensors, all of which are known here."""


class TileView(View):
    """The view of one tile, or frame, before a block of the tower.

    Args:
        stage: the pruning point.
        tokens: [N, C] states entering the block, the patches of a token side by side.
        grid: (1, h, w).
        depth: blocks of the tower.
        pixels: returns the pixels of the tile's tokens [N, P].
        raw: returns the same as they entered the tower, in any shape.
    """

    def __init__(
        self,
        stage: Stage,
        tokens: Tensor,
        grid: Grid,
        depth: int,
        pixels: Callable[[], Tensor],
        raw: Callable[[], Tensor],
    ) -> None:
        nothing = tokens[:0]
        self._stage, self._pixels, self._raw = stage, pixels, raw
        self.tokens, self.grids, self.initial = tokens, [grid], len(tokens)
        self.layer, self.num_layers = stage.block or 0, depth
        self.cells, self.after = torch.arange(len(tokens), device=tokens.device), torch.arange(0)
        self.prompt, self.text, self.scratch = nothing, nothing, {}
        absent: Any = None
        self.vision = self.attention = absent

    @cached_property
    def pixels(self) -> Tensor:  # type: ignore[override]  # mypy: a field that is computed when first read
        """[N, P]."""
        return self._pixels()

    @cached_property
    def generator(self) -> torch.Generator:  # type: ignore[override]  # as above
        """Seeded by the pixels, so that an image gets one draw in every batch and prompt."""
        rounded = self._raw().bfloat16().contiguous().cpu()  # alike in every precision of the model
        digest = hashlib.sha256(rounded.view(torch.uint8).numpy().tobytes()).hexdigest()
        return seeded_generator(self._stage.pruner.seed, digest, self.layer)


class TowerStage:
    """A stage in one call of the tower.

    Args:
        adapter: the model's adapter.
        stage: the pruning point.
        grids: (t, h, w) of the call's images or tiles.
        pixels: those that enter the tower.
        method_time: opens the timer's method span.

    Attributes:
        kept: per image or tile the numbers of its tokens that stay, ascending; None before the block.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        stage: Stage,
        grids: Sequence[Grid],
        pixels: Tensor,
        method_time: Callable[[], AbstractContextManager[None]],
    ) -> None:
        assert stage.block is not None  # of a stage in the tower
        self.first, self.last = stage.block, adapter.last_block()
        self.kept: list[Ints] | None = None
        self._adapter, self._stage, self._grids = adapter, stage, grids
        self._pixels, self._method_time = pixels, method_time
        self._whole: torch.Size | None = None  # of the states before anything is dropped; None once they are back
        self._rows: Tensor  # places that stay, counted through the call, ascending
        self._known: list[tuple[Any, Any]] = []  # arguments of blocks, and what they are for the places that stay

    @property
    def work(self) -> list[TowerWork]:
        """The work on every image or tile."""
        return [DroppedPatches(self.first, self.last, tuple(kept.tolist())) for kept in self.kept or ()]

    # --- hooks --------------------------------------------------------------------------------------------------
    def before_block(self, number: int, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        """Return the arguments of a block for the patches that stay; choose them before the first one."""
        with self._method_time():
            hidden = args[0] if args else kwargs["hidden_states"]
            if number == self.first:
                hidden = self._dropped(hidden)
            changed = {name: self._left(name, value) for name, value in kwargs.items() if name != "hidden_states"}
            others = tuple(self._left("", value) for value in args[1:])
        return ((hidden, *others), changed) if args else ((), {"hidden_states": hidden, **changed})

    def after_last(self, output: Any) -> Any:
        """Return the states of the last block at the places of all patches."""
        hidden = output[0] if isinstance(output, tuple) else output
        assert self._whole is not None  # the block ran on the patches that stay
        whole = hidden.new_zeros(self._whole)
        whole.view(-1, whole.shape[-1])[self._rows] = hidden.flatten(0, -2)
        self._whole = None
        self._known.clear()
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    def after_part(self, output: Any) -> Any:
        """Return what a part of the tower made of the patches that stay at the places of all tokens."""
        if self._whole is None:
            return output
        merged = self._adapter.merge**2
        whole = output.new_zeros(self._whole[0] // merged, output.shape[-1])
        whole[self._rows[::merged] // merged] = output
        return whole

    # --- what stays ---------------------------------------------------------------------------------------------
    def _dropped(self, hidden: Tensor) -> Tensor:
        """Choose, and return the states [..., C] that stay."""
        adapter, packed, shape = self._adapter, self._adapter.packed, hidden.shape
        places = adapter.patch_places(self._grids).numpy()
        sizes = list(map(prod, self._grids))
        if not packed:  # counted through the call
            starts = np.arange(len(sizes)) * shape[1] + int(adapter.has_cls)
            places = places + np.repeat(starts, sizes)[:, None]
        expected = places.size + (0 if packed else len(sizes) * int(adapter.has_cls))
        if prod(shape[:-1]) != expected:
            raise UnsupportedError(
                f"{prod(shape[:-1])} states enter block {self.first} of the vision tower where {expected} patches were "
                "expected, so its patches cannot be dropped; use a method that acts after the tower"
            )
        flat = hidden.flatten(0, -2)
        self.kept = self._chosen(flat, places)
        kept = np.concatenate([start + one for (start, _), one in zip(consecutive(sizes), self.kept, strict=True)])
        rows = places[kept].ravel()
        if not packed:
            rows = np.concatenate((rows, *[np.arange(len(sizes)) * shape[1]] * adapter.has_cls))
        self._whole, self._rows = shape, sent(np.sort(rows), hidden.device)
        left = flat[self._rows]
        return left if packed else left.view(shape[0], -1, shape[-1])

    @torch.no_grad()
    def _chosen(self, flat: Tensor, places: Ints) -> list[Ints]:
        """Return the tokens that stay of every image, from the states [S, C] and the places [N, m] of the tokens."""
        stage, depth = self._stage, len(self._adapter.vision_blocks())
        frames = [(1, height, width) for t, height, width in self._grids for _ in range(t)]
        answers, random = list[Answer](), random_states()
        with undisturbed(stage):
            for number, (start, stop) in enumerate(consecutive(map(prod, frames))):
                tokens = flat[sent(places[start:stop], flat.device)].flatten(1)
                pixels, raw = partial(self._tile, start, stop), partial(self._entered, number, start, stop)
                view = TileView(stage, tokens, frames[number], depth, pixels, raw)
                keep, name = keep_count(stop - start, stage.ratio), f"tile {number} of the vision tower"
                answers.append(choose(stage, name, view, stop - start, keep, tokens.shape[1]))
        check_undrawn(stage.pruner, random)
        if any(answer.tokens is not None for answer in answers):
            raise PruningError(f"{type(stage.pruner).__name__}: replacement tokens are not possible inside the tower")
        own = [np.sort(choice.indices.read()[0]) for choice in settle(answers)]
        moved = iter([start + one for (start, _), one in zip(consecutive(map(prod, frames)), own, strict=True)])
        images = consecutive(map(prod, self._grids))
        return [
            np.concatenate([next(moved) for _ in range(t)]) - start
            for (t, _, _), (start, _) in zip(self._grids, images, strict=True)
        ]

    def _tile(self, start: int, stop: int) -> Tensor:
        """Return the pixels [N, P] of some tokens of the call."""
        return self._tokens_pixels[start:stop]

    def _entered(self, number: int, start: int, stop: int) -> Tensor:
        """Return what entered the tower of a tile, of which there are as many as tiles, or of a frame's patches."""
        merged = self._adapter.merge**2
        return self._pixels[start * merged : stop * merged] if self._adapter.packed else self._pixels[number]

    @cached_property
    def _tokens_pixels(self) -> Tensor:
        """[tokens, P]."""
        return torch.cat(self._adapter.token_pixels(self._pixels.float(), self._grids))

    # --- arguments of blocks ------------------------------------------------------------------------------------
    def _left(self, name: str, value: Any) -> Any:
        """Return an argument of a block, other than its states, for the places that stay.

        Raises:
            UnsupportedError: it is not known what the argument is.
        """
        if name == "max_seqlen" or not _has_tensor(value):  # the longest range is no longer than before
            return value
        found = next((left for given, left in self._known if given is value), None)
        if found is None:
            if name == "cu_seqlens" and self._adapter.packed:
                bounds = torch.searchsorted(self._rows, value.to(self._rows)).to(value)
                found = bounds.unique_consecutive()
            elif name == "position_embeddings" and self._adapter.packed:
                found = tuple(table[self._rows.to(table.device)] for table in value)
            else:
                raise UnsupportedError(
                    f"the blocks of this vision tower get {name or 'a tensor'} besides their states, so patches cannot "
                    "be dropped between them; use a method that acts after the tower"
                )
            self._known.append((value, found))
        return found


def _has_tensor(value: Any) -> bool:
    """Check whether an argument is, or holds, a tensor."""
    return isinstance(value, Tensor) or (isinstance(value, (tuple, list)) and any(map(_has_tensor, value)))


def decided_in_tower(arriving: StageInput, prompts: Sequence[Prompt]) -> Decided:
    """Return the choice that the tower made, as the answer for every token group.

    Raises:
        UnsupportedError: the images were not encoded by a tower that dropped patches.
    """
    kept = None if arriving.vision is None else arriving.vision.kept
    if kept is None:
        raise UnsupportedError(
            f"{type(arriving.stage.pruner).__name__} drops patches inside the vision tower, but the image features "
            "were computed outside this session; pass pixel values"
        )
    found: Decided = []
    for prompt in prompts:
        for group in prompt.groups:
            if group.origins is None or group.origins.share is not None:
                raise UnsupportedError("the tokens of this family are not those of its vision tower, one by one")
            stays = np.flatnonzero(kept[group.origins.index[:, 0].numpy()])
            if len(stays) < len(group.ranks):
                groups = StageGroups(arriving, [(prompt, group)], len(stays))
                indices = torch.from_numpy(stays)[None]
                found.append((groups, Answer(arriving.stage, (prompt.info.id,), groups.total, indices, None)))
    return found
