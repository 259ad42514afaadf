"""Decode steps that continue a pruned cache: positions of the un-pruned prompt and, per stage, a mask that fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.compaction import CacheState
from uniprune.engine.forward import Forward
from uniprune.engine.host_copy import sent
from uniprune.engine.kept_tokens import KeptTokens, active
from uniprune.engine.last_tokens import for_last
from uniprune.engine.layer_kinds import attention_mask, needs_positions
from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.context import FULL, LINEAR


class Decode(Forward):
    """One forward on a pruned cache.

    Args:
        state: how the cache was pruned.
        cache: the cache.
        adapter: the model's adapter.
    """

    def __init__(self, state: CacheState, cache: Any, adapter: ModelAdapter) -> None:
        self.state, self.cache, self.config = state, cache, adapter.decoder.config
        self._adapter, self._kinds = adapter, adapter.kinds
        # Before the first stage after layer 0 the model's own mask fits, once `before_model` has sized it on layer 0;
        # not that of a window, which the model counts in tokens that are left.
        count, full = len(self._kinds), set(self._kinds) == {FULL}
        own = next((stage.layer for stage in state.stages if stage.layer > 0 or not full), count)
        self.layers = range(own, count)
        # Negative once assisted decoding has taken back tokens that it guessed in the prefill.
        counted = next(layer for layer, kind in enumerate(self._kinds) if kind != LINEAR)
        self._grown = int(cache.get_seq_length(counted)) - state.length(counted)
        self._masks: dict[tuple[int, str], Any] = {}

    def before_model(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the model's arguments with position ids counted from the un-pruned prompt.

        If a caller passes all ids of the conversation, `generate` cuts them by the pruned length of layer 0, so some
        tokens are passed again; they are recognised by their position ids and dropped.
        """
        kwargs = dict(kwargs)
        name = "input_ids" if kwargs.get("input_ids") is not None else "inputs_embeds"
        new, device = kwargs[name].shape[1], kwargs[name].device
        positions = None if self.state.recounted and new == 1 else kwargs.get("position_ids")
        if positions is None or new > 1:
            expected = self.state.next_position.to(device) + self._grown
            if positions is None:
                positions = expected + torch.arange(new, device=device)
            again = _passed_again(positions, expected) if new > 1 else 0
            if again:
                kwargs[name], positions = kwargs[name][:, again:], positions[..., again:]
        if self.state.shift is not None:
            positions = positions - self.state.shift.to(device)
        kwargs["position_ids"] = positions
        first = active(self.state.stages, 0)
        if first is not None:  # the caller's mask has the un-pruned length
            kwargs["attention_mask"] = self._valid(first, kwargs[name])
        return kwargs

    def before_layer(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]] | None:
        """Return the hidden states and changed arguments of one of `layers`; None if the layer was not pruned."""
        kept = active(self.state.stages, layer)
        if kept is None or self._kinds[layer] == LINEAR:
            return None
        shared = kept.layer, self._kinds[layer]
        if shared not in self._masks:
            self._masks[shared] = self._mask(kept, layer, hidden)
        positions = kwargs.get("position_ids") if needs_positions(self._adapter.layers[layer]) else None
        arguments = {"attention_mask": self._masks[shared], "position_ids": positions}
        return hidden, for_last(arguments, hidden.shape[1]) if layer in self._adapter.reusing else arguments

    def _mask(self, kept: KeptTokens, layer: int, hidden: Tensor) -> Any:
        count, start = self._grown + hidden.shape[1], self.state.prompt_length
        # Positions of guesses that were taken back in the prefill end before the prompt does.
        end = start + max(0, count)

        def positions() -> Tensor:
            new = np.broadcast_to(np.arange(start, end), (len(kept.index), max(0, count)))
            return sent(np.concatenate((kept.index, new), axis=1)[:, : kept.width + count], hidden.device)

        return attention_mask(
            self.config, self._kinds[layer], layer, hidden, self._valid(kept, hidden), self.cache, positions, end
        )

    def _valid(self, kept: KeptTokens, inputs: Tensor) -> Tensor | None:
        """Return [B, cached + q], False at padding in the layers from a stage on, for `inputs` [B, q, ...].

        None without padding.

        Raises:
            UnsupportedError: the batch is not that of the prefill.
        """
        batch, new = inputs.shape[:2]
        if batch != kept.valid.shape[0]:
            raise UnsupportedError(
                f"the batch has {batch} rows but the pruned cache was filled with {kept.valid.shape[0]}; "
                "decode with the batch of the prefill"
            )
        if not kept.padded:
            return None
        count = self._grown + new
        valid = np.concatenate((kept.valid, np.ones((batch, max(0, count)), np.bool_)), axis=1)
        return sent(valid[:, : kept.width + count], inputs.device)


def _passed_again(positions: Tensor, expected: Tensor) -> int:
    """Return how many tokens of `positions` [..., B, q] stand before those at `expected` [..., B, 1].

    These are behind all others in every axis, where no token of an image is.

    Raises:
        UnsupportedError: the positions do not continue the prompt.
    """
    # Of M-RoPE three axes count; `generate` has a count of tokens before them.
    axes = slice(-3, None) if positions.dim() == 3 else slice(None)
    found = (positions[axes] == expected[axes]).flatten(0, -2).all(0).nonzero()
    if not len(found):
        raise UnsupportedError(
            f"the position ids {positions[axes].flatten()[:3].tolist()}, … do not continue the pruned prompt, whose "
            f"next one is {int(expected.flatten()[-1])}; pass the new ids, or all ids of the conversation, without "
            "mm_token_type_ids and pixels"
        )
    return int(found[0])
