"""What must be remembered between the prefill and the decode steps that continue it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_causal_mask

ATTRIBUTE = "uniprune_state"


@dataclass(frozen=True)
class KeptTokens:
    """The tokens that enter decoder layer `layer` and all later ones; tensors lie on the host.

    Attributes:
        layer: first layer that sees this sequence.
        index: [B, n] positions in the un-pruned sequence, left-padded with 0, ascending.
        valid: [B, n] False at padding. lengths: valid tokens of every row.
    """

    layer: int
    index: Tensor
    valid: Tensor
    lengths: tuple[int, ...]

    @property
    def padded(self) -> bool:
        """Whether rows have different lengths."""
        return min(self.lengths) < self.index.shape[1]

    def columns(self, positions: Tensor, row: int | slice = slice(None)) -> Tensor:
        """Where `positions` of the un-pruned sequence stand, [m] in one row or [B, m] in all; any column if nowhere."""
        # Padding counts as position 0 and comes first: the last of equal entries is the token.
        return (torch.searchsorted(self.index[row], positions, right=True) - 1).clamp(min=0)


@dataclass(frozen=True)
class CacheState:
    """How each layer of one KV cache was pruned. Lives as an attribute of the cache, so a deep copy keeps it.

    Attributes:
        stages: pruned sequences in layer order. prompt_length: length of the un-pruned prompt, padding included.
        next_position: [..., B, 1] position ids of the first generated token.
        shift: [B, 1] what compact positions subtract from every later position id.
    """

    stages: tuple[KeptTokens, ...]
    prompt_length: int
    next_position: Tensor
    shift: Tensor | None

    @property
    def first_length(self) -> int:
        """Entries layer 0 held at the end of the prefill."""
        first = active(self.stages, 0)
        return self.prompt_length if first is None else first.index.shape[1]


def active(stages: Sequence[KeptTokens], layer: int) -> KeptTokens | None:
    """The stage in force at `layer`: the last one at or before it; `stages` are in layer order."""
    found = None
    for stage in stages:
        if stage.layer <= layer:
            found = stage
    return found


def token_bytes(cache: Any) -> list[int] | None:
    """Bytes that one token's key and value take up in each layer of a cache, from the tensors that hold them.

    None where some layer is not held as tensors [B, heads, n, d] (quantised caches).
    """
    sizes = []
    for layer in cache.layers if cache is not None else ():
        size = 0
        for part in (getattr(layer, "keys", None), getattr(layer, "values", None)):
            if not isinstance(part, Tensor) or part.dim() != 4:
                return None
            _, heads, _, width = part.shape
            size += heads * width * part.element_size()
        sizes.append(size)
    return sizes


def remember(cache: Any, state: CacheState) -> None:
    """Attach a state to a cache."""
    setattr(cache, ATTRIBUTE, state)


def recall(cache: Any) -> CacheState | None:
    """The state of a cache that an earlier prefill pruned."""
    return getattr(cache, ATTRIBUTE, None)


def forget(cache: Any) -> None:
    """Detach the state, when an emptied cache is used again."""
    if recall(cache) is not None:
        delattr(cache, ATTRIBUTE)


def causal_mask(config: Any, hidden: Tensor, valid: Tensor | None, cache: Any, layer: int) -> Any:
    """The attention mask of `layer` for `hidden` [B, q, D], in the format the active attention kernel wants.

    `layer_idx` sizes it on that layer's own KV length. Position ids are withheld: with gaps in them, mask creation and
    the flash kernels would take one pruned sequence for several packed ones.
    `valid` is [B, cached + q], False at padding, or None when there is none: no device need be asked.
    """
    return create_causal_mask(
        config=config,
        inputs_embeds=hidden,
        attention_mask=valid,
        past_key_values=cache,
        position_ids=None,
        layer_idx=layer,
        allow_is_causal_skip=valid is None,
    )
