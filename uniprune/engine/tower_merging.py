"""Merging inside the blocks of a vision tower, between attention and MLP, with sizes that bias later attention.

A block adds its MLP's output to the states before it. So its MLP runs on the merged states and returns as many places
as the block has, any values; the block's output is then replaced by the merged states plus what the MLP computed.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.checks import check_undrawn, random_states, undisturbed
from uniprune.engine.decisions import choose, settle
from uniprune.engine.host_copy import sent
from uniprune.engine.tower_stage import Args, Kwargs, TileView, TowerStage
from uniprune.errors import PruningError
from uniprune.modeling.tower_work import MergedTokens, TowerWork
from uniprune.pruning.budget import keep_count
from uniprune.pruning.view import BlockState


def size_bias(sizes: Tensor) -> Tensor:
    """Return [B, 1, 1, S] what is added to attention logits of tokens that are means of `sizes` [B, S] tokens."""
    return sizes.log()[:, None, None]


class MergingStage(TowerStage):
    """A stage that merges tokens inside every block from the first to the last one; arguments as `TowerStage`."""

    _bias: Tensor | None = None

    @property
    def work(self) -> list[TowerWork]:
        """The work on every image or tile, the same for all."""
        return [MergedTokens(self.first, tuple(self._lengths))] * len(self._grids)

    def before_block(self, number: int, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        """Begin at the first block; the block's arguments stay."""
        if number == self.first:
            self._begin(args[0] if args else kwargs["hidden_states"])
        return args, kwargs

    def before_attention(self, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        """Return the arguments of a block's attention with the bias, once something was merged."""
        mask = None if self._bias is None else self._bias.to(args[0] if args else kwargs["hidden_states"])
        return args[:1], {**kwargs, "attention_mask": mask}

    def after_keys(self, keys: Tensor) -> None:
        """Hold the keys [B, S, heads * d] of the block's attention."""
        self._keys = keys

    def before_mlp(self, number: int, hidden: Tensor) -> Tensor:
        """Merge the states [B, S, C] after a block's attention; return what its MLP shall get, normalised later."""
        merges = self._rates[number - self.first]
        with self._method_time():
            self._entering, self._merged = hidden.shape, hidden
            if merges:
                self._merge(hidden, merges)
            self._lengths.append(self._merged.shape[1])
        return self._merged

    def after_mlp(self, output: Tensor) -> Tensor:
        """Keep the MLP's output; return as many places as entered the block."""
        self._merged = self._merged + output
        return output if output.shape == self._entering else output.new_zeros(self._entering)

    def after_block(self, output: Tensor) -> Tensor:
        """Return the states that leave the block."""
        return self._merged

    def after_last(self, output: Any) -> Any:
        """Return the states of the last block at the places of all patches."""
        classes, starts = int(self._adapter.has_cls), np.arange(len(self._slots))[:, None]
        self.kept = [row[classes:] - classes for row in self._slots]
        assert self._whole is not None  # the tower ran
        self._rows = sent((starts * self._whole[1] + self._slots).ravel(), output.device)
        return super().after_last(self._merged)

    def _begin(self, hidden: Tensor) -> None:
        """Plan the call."""
        images, places = hidden.shape[:2]
        tokens, blocks = places - int(self._adapter.has_cls), self.last - self.first + 1
        assert self._stage.plan is not None  # of a stage that merges
        self._rates = self._stage.plan(tokens, keep_count(tokens, self._stage.ratio), blocks)
        self._lengths = [places]
        self._whole = hidden.shape
        self._slots = np.tile(np.arange(places), (images, 1))
        self._sizes = torch.ones(images, places, device=hidden.device)
        self._bias = None

    @torch.no_grad()
    def _merge(self, hidden: Tensor, merges: int) -> None:
        """Let the method merge `merges` tokens of every image."""
        stage, heads, total = self._stage, self._adapter.vision.config.num_attention_heads, hidden.shape[1]
        depth, random, answers = len(self._adapter.vision_blocks()), random_states(), []
        sizes: list[Tensor] = []
        with undisturbed(stage):
            for image, (states, keys) in enumerate(zip(hidden, self._keys, strict=True)):
                raw = partial(self._entered, image, 0, 0)
                view = TileView(stage, states, (1, 1, total), depth, partial(states.new_empty, 0), raw)
                by_head = keys.unflatten(-1, (heads, -1)).transpose(0, 1)
                view.block = BlockState(by_head, self._sizes[image], int(self._adapter.has_cls))
                name = f"tile {image} of the vision tower"
                answers.append(choose(stage, name, view, total, total - merges, states.shape[-1]))
                if view.block.merged is None or answers[-1].tokens is None:
                    raise PruningError(f"{type(stage.pruner).__name__}: a merge needs tokens and view.block.merged")
                sizes.append(view.block.merged)
        check_undrawn(stage.pruner, random)
        chosen = np.stack([choice.indices.read()[0] for choice in settle(answers)])
        if (np.diff(chosen) <= 0).any():
            raise PruningError(f"{type(stage.pruner).__name__}: survivors of a merge must be in their order")
        self._slots = np.take_along_axis(self._slots, chosen, 1)
        self._merged = torch.cat([one.tokens for one in answers if one.tokens is not None]).to(hidden)
        self._sizes = torch.stack(sizes)
        self._bias = size_bias(self._sizes)
