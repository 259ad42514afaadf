"""Compaction: the hidden states, positions and caches that fit the tokens which are left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from uniprune.engine.host_copy import sent, to_device
from uniprune.engine.kept_tokens import KeptTokens, active
from uniprune.errors import UnsupportedError

ATTRIBUTE = "uniprune_state"
"""Attribute of a KV cache that holds its `CacheState`."""


def following(positions: Tensor | None, embeds: Tensor) -> Tensor:
    """Return [..., B, 1] position ids of the token after a prompt with position ids `positions` [..., B or 1, L].

    Without any, the prompt `embeds` [B, L, D] has 0, 1, …

    With M-RoPE it is the one after the largest of the three axes, as in the model: frames of a video may lie further
    apart in time than their tokens are many, so an earlier position may be larger. A fourth row counts tokens.
    """
    if positions is None:
        return torch.full((1, 1), embeds.shape[1], device=embeds.device)
    if positions.dim() == 2:
        after: Tensor = positions[..., -1:] + 1
        return after
    largest = positions[-3:].amax((0, -1)).add(1)[None, :, None].expand(3, -1, -1)
    return largest if len(positions) == 3 else torch.cat((positions[:-3, :, -1:] + 1, largest))


# --- tensors of the model ---------------------------------------------------------------------------------------
def take(x: Tensor, columns: Tensor) -> Tensor:
    """Gather rows `columns` [B, n'] of `x` [B or 1, n, D], on the device of `x`."""
    where = to_device(columns, x.device)
    return x[0][where] if len(x) == 1 else x.gather(1, where[..., None].expand(-1, -1, x.shape[-1]))


def replace_tokens(hidden: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
    """Return `hidden` [B, n, D] with `tokens` [m, D] at flat `places` [m] of its B * n; the input is not changed."""
    flat = hidden.flatten(0, 1).index_copy(0, places, tokens)
    return flat.view(hidden.shape)


# --- KV cache ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class CacheState:
    """The pruning of each layer of one KV cache; an attribute of the cache, so a deep copy keeps it.

    Attributes:
        stages: pruned sequences in layer order.
        prompt_length: length of the un-pruned prompt, padding included.
        next_position: [..., B, 1] position ids of the first generated token.
        shift: [B, 1] decrement of every later position id under compact positions, else None.
        recounted: whether the caller does not know later position ids, after a further turn with images.
    """

    stages: tuple[KeptTokens, ...]
    prompt_length: int
    next_position: Tensor
    shift: Tensor | None
    recounted: bool = False

    def length(self, layer: int) -> int:
        """Return the number of columns that entered `layer` in the prefill."""
        kept = active(self.stages, layer)
        return self.prompt_length if kept is None else kept.width


def remember(cache: Any, state: CacheState) -> None:
    """Attach a state to a cache."""
    setattr(cache, ATTRIBUTE, state)


def recall(cache: Any) -> CacheState | None:
    """Return the state of a cache that an earlier prefill pruned, None for other caches."""
    return getattr(cache, ATTRIBUTE, None)


def forget(cache: Any) -> None:
    """Detach the state, when an emptied cache is used again."""
    if recall(cache) is not None:
        delattr(cache, ATTRIBUTE)


@dataclass(frozen=True)
class CachedLayer:
    """Sizes of one layer of a KV cache.

    Attributes:
        token: bytes of one token's key and value.
        columns: tokens it has room for: a windowed layer holds the last ones only.
        state: bytes that a row takes however many tokens it has: the state of linear attention.
    """

    token: int
    columns: int
    state: int


class HeldLayer(NamedTuple):
    """Shapes of one layer of a KV cache, noted right after a prefill: later steps change the cache.

    Attributes:
        shapes: shape and data type of its keys, and of its values; None if they are not tensors.
        has_tokens: whether it holds a key and a value per token.
        state: bytes of a row's state.
    """

    shapes: tuple[torch.Size, torch.dtype, torch.Size, torch.dtype] | None
    has_tokens: bool = True
    state: int = 0


_shapes = attrgetter("keys.shape", "keys.dtype", "values.shape", "values.dtype")


def held_layers(cache: Any) -> list[HeldLayer]:
    """Note the shapes of every layer of a cache."""
    layers = cache.layers if cache is not None else ()
    return [
        HeldLayer(_shapes(one)) if type(one) is DynamicLayer and one.is_initialized else _held(one) for one in layers
    ]


def _held(layer: Any) -> HeldLayer:
    """Note the shapes of a layer that may have other parts than keys and values."""
    state = 0
    for states in (getattr(layer, "conv_states", None), getattr(layer, "recurrent_states", None)):
        if states:
            state += sum(part[0].numel() * part.dtype.itemsize for part in states.values() if part is not None)
    parts = (getattr(layer, "keys", None), getattr(layer, "values", None))
    shapes = _shapes(layer) if all(isinstance(part, Tensor) for part in parts) else None
    return HeldLayer(shapes, hasattr(layer, "get_seq_length"), state)


def cached_layers(held: Sequence[HeldLayer]) -> list[CachedLayer] | None:
    """Return the sizes of every layer of a cache, from the tensors that held it.

    None if some layer is not held as tensors [B, heads, n, d] or states [B, ...] (quantised caches).
    """
    sizes = []
    for layer in held:
        token, columns = 0, 0
        if layer.has_tokens:
            if layer.shapes is None:
                return None
            keys, key_type, values, value_type = layer.shapes
            if len(keys) != 4 or len(values) != 4:
                return None
            token = keys[1] * keys[3] * key_type.itemsize + values[1] * values[3] * value_type.itemsize
            columns = values[2]
        sizes.append(CachedLayer(token, columns, layer.state))
    return sizes


def _grows(layer: Any, width: int) -> bool:
    """Check whether a layer holds its `width` tokens, or the last ones of its window, as tensors that grow."""
    keys = getattr(layer, "keys", None)
    if not isinstance(keys, Tensor) or keys.dim() != 4 or getattr(layer, "is_compileable", False):
        return False
    return width in (keys.shape[-2], getattr(layer, "cumulative_length", None))


def evict(cache: Any, first: int, stages: Sequence[KeptTokens], whole: KeptTokens) -> list[KeptTokens]:
    """Gather the keys and values of layers `first` and later down to the survivors of the last stage.

    Keys keep the rotary phase of their original position, and generated tokens continue the original positions, so
    distances between the remaining tokens are those of the full prompt. Layers without keys keep their state.

    Args:
        cache: KV cache of a finished prefill.
        first: first layer to cut.
        stages: the tokens each stage kept, in layer order.
        whole: the un-pruned prompt, which layers before the first stage hold.

    Returns:
        The stages for decoding: from `first` on, every layer holds the same tokens.

    Raises:
        UnsupportedError: a layer's keys are not a plain growing tensor (static, quantised or offloaded caches).
    """
    last = stages[-1]
    if first >= last.layer:
        return list(stages)
    for number in range(first, last.layer):
        held, layer = active(stages, number) or whole, cache.layers[number]
        if not hasattr(layer, "get_seq_length"):  # the state of linear attention, which has no tokens to take out
            continue
        width = held.width
        if cache.offloading or not _grows(layer, width):
            kind = f"offloaded {type(layer).__name__}" if cache.offloading else type(layer).__name__
            raise UnsupportedError(
                f"evicting tokens from the KV cache needs a DynamicCache on the model's device, but layer {number} is "
                f"a {kind}; leave out cache_implementation or turn eviction off"
            )
        keys = layer.keys
        # A windowed layer holds its last tokens only: one that it no longer holds is outside the window of all to come,
        # so that any key may stand in its place.
        columns = np.stack([held.columns(own, row) for row, own in enumerate(last.index)]) - (width - keys.shape[-2])
        if hasattr(layer, "cumulative_length"):
            layer.cumulative_length = columns.shape[1]
        if keys.shape[-2] < width:
            columns = columns[:, -layer.sliding_window + 1 :]
        where = sent(columns.clip(min=0), keys.device)[:, None, :, None]
        layer.keys = keys.gather(2, where.expand(-1, keys.shape[1], -1, keys.shape[-1]))
        layer.values = layer.values.gather(2, where.expand(-1, layer.values.shape[1], -1, layer.values.shape[-1]))
    before = [stage for stage in stages if stage.layer < first]
    return [*before, replace(last, layer=first)]
