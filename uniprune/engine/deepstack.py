"""Deepstack (arXiv 2406.04334): visual features that a decoder adds to its hidden states after its first layers.

The decoder adds them at positions of the un-pruned prompt. A prefill that prunes takes them from the decoder and adds,
to what enters the next layer, the rows of the tokens that are left.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from torch import Tensor

from uniprune.engine.host_copy import to_device
from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import ModelAdapter

PLACES, FEATURES = "visual_pos_masks", "deepstack_visual_embeds"
"""Arguments of a decoder with deepstack: [B, L] where to add, and [P, D] what to add after each of its first layers."""


class Deepstack:
    """The deepstack features of one prefill.

    Args:
        features: [P, D] for each of the first decoder layers: a row per visual token of the batch, in prompt order.
        visual: [B, L] True at visual tokens of the un-pruned prompts, on the CPU.

    Raises:
        UnsupportedError: they are not one row per visual token.
    """

    def __init__(self, features: Sequence[Tensor], visual: Tensor) -> None:
        count = int(visual.sum())
        if any(len(rows) != count for rows in features):
            raise UnsupportedError(
                f"the decoder adds deepstack features of {[len(rows) for rows in features]} tokens to {count} visual "
                "placeholders; only one row per placeholder can follow its token"
            )
        self._features = features
        self._rows = (visual.flatten().cumsum(0) - 1).view(visual.shape).where(visual, -1)
        self._held: tuple[Tensor, Tensor, Tensor] | None = None  # of the origins that were last given

    def added(self, layer: int, hidden: Tensor, origins: Tensor, valid: Tensor | None) -> Tensor:
        """Return the input [B, n, D] of `layer`: `hidden`, the output of the layer before, plus its tokens' rows.

        Args:
            layer: the layer's index.
            hidden: [B, n, D].
            origins: [B, n] un-pruned positions of the tokens in `hidden`.
            valid: [B, n] False at padding, None without padding.
        """
        if not 0 < layer <= len(self._features):
            return hidden
        features = self._features[layer - 1]
        if self._held is None or self._held[0] is not origins:
            held = to_device(self._rows, features.device).gather(1, to_device(origins, features.device))
            held = held if valid is None else held.where(to_device(valid, features.device), -1)
            self._held = origins, held.clamp(min=0), (held >= 0)[..., None]
        _, rows, has = self._held
        added = features[to_device(rows, features.device)].to(hidden.device, hidden.dtype)
        return (hidden + added).where(to_device(has, hidden.device), hidden)


def deepstack_levels(adapter: ModelAdapter) -> int:
    """Return after how many of its first layers the decoder adds features; 0 for models without deepstack."""
    vision = getattr(adapter.model.config, "vision_config", None)
    return len(getattr(vision, "deepstack_visual_indexes", None) or ())


def check_deepstack(adapter: ModelAdapter) -> None:
    """Refuse a model with deepstack features that do not reach its decoder as `FEATURES` and `PLACES`.

    Raises:
        UnsupportedError: the decoder has other arguments, or adds features after its last layer.
    """
    levels = deepstack_levels(adapter)
    if levels and not {PLACES, FEATURES} <= inspect.signature(adapter.decoder.forward).parameters.keys():
        raise UnsupportedError(
            "the model adds deepstack visual features inside its decoder layers, indexed by un-pruned positions, but "
            f"its decoder does not receive them as {PLACES} and {FEATURES}; such decoders are not supported"
        )
    if levels >= len(adapter.layers):
        raise UnsupportedError(
            f"the model adds deepstack visual features after {levels} decoder layers, but has only "
            f"{len(adapter.layers)}: features after the last layer are not supported"
        )
