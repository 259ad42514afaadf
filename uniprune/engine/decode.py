"""Decode steps that continue a pruned cache: right positions and, per stage, the right mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from uniprune.engine.attention import AttentionCapture
from uniprune.engine.cache import CacheState, KeptTokens, active, causal_mask
from uniprune.engine.compaction import to_device
from uniprune.engine.vision import Vision
from uniprune.errors import UnsupportedError


class Decode:
    """One forward on a pruned cache; has the methods of `Prefill`.

    Args:
        state: how the cache was pruned. cache: the cache. config: the decoder's config.
    """

    tap: AttentionCapture | None = None

    def __init__(self, state: CacheState, cache: Any, config: Any) -> None:
        self.state, self.cache, self.config = state, cache, config
        # Before the first stage behind layer 0 the model's own mask fits, once it is told what layer 0 holds.
        own = next((stage.layer for stage in state.stages if stage.layer > 0), config.num_hidden_layers)
        self.layers = range(own, config.num_hidden_layers)
        self._masks: dict[int, Any] = {}

    def repair(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The model's arguments with position ids counted from the un-pruned prompt.

        A caller that passes all ids of the conversation has them cut by the pruned length of layer 0, so some tokens
        come twice; their position ids give them away and they are dropped.
        """
        kwargs = dict(kwargs)
        name = "input_ids" if kwargs.get("input_ids") is not None else "inputs_embeds"
        new, device = kwargs[name].shape[1], kwargs[name].device
        positions = kwargs.get("position_ids")
        if positions is None or new > 1:
            start = int(self.cache.get_seq_length()) - self.state.first_length
            expected = self.state.next_position.to(device) + start
            if positions is None:
                positions = expected + torch.arange(new, device=device)
            again = int((_text_row(expected)[0, 0] - _text_row(positions)[0, 0]).clamp(min=0)) if new > 1 else 0
            if 0 < again < new:
                kwargs[name], positions = kwargs[name][:, again:], positions[..., again:]
        if self.state.shift is not None:
            positions = positions - self.state.shift.to(device)
        kwargs["position_ids"] = positions
        first = active(self.state.stages, 0)
        if first is not None:  # the caller's mask has the un-pruned length
            kwargs["attention_mask"] = self._valid(first, kwargs[name])
        return kwargs

    def before_layer(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]] | None:
        """The hidden states and changed arguments of one of `layers`; None when the layer was not pruned."""
        kept = active(self.state.stages, layer)
        if kept is None:
            return None
        if kept.layer not in self._masks:
            self._masks[kept.layer] = self._mask(kept, hidden)
        return hidden, {"attention_mask": self._masks[kept.layer], "position_ids": None}

    def start(self, embeds: Tensor, position_ids: Tensor | None, vision: Vision | None) -> None:
        """Nothing to prepare."""

    def finish(self) -> None:
        """Nothing to remember or report."""

    def _mask(self, kept: KeptTokens, hidden: Tensor) -> Any:
        return causal_mask(self.config, hidden, self._valid(kept, hidden), self.cache, kept.layer)

    def _valid(self, kept: KeptTokens, inputs: Tensor) -> Tensor | None:
        """[B, cached + q] False at padding in the layers from a stage on, for `inputs` [B, q, ...]; None without."""
        batch, new = inputs.shape[:2]
        if batch != kept.valid.shape[0]:
            raise UnsupportedError(
                f"the batch has {batch} rows but the pruned cache was filled with {kept.valid.shape[0]}; "
                "decode with the batch of the prefill"
            )
        if not kept.padded:
            return None
        grown = int(self.cache.get_seq_length(kept.layer)) - kept.valid.shape[1] + new
        return to_device(torch.cat([kept.valid, kept.valid.new_ones(batch, grown)], dim=1), inputs.device)


def _text_row(positions: Tensor) -> Tensor:
    """[B, q] of position ids that may have leading M-RoPE rows."""
    return positions[-1] if positions.dim() == 3 else positions
