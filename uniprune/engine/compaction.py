"""Compaction: the tokens each decoder layer holds, and the hidden states, positions, masks and caches that fit them.

The bookkeeping is kept on the CPU: one device-to-host copy per batch and stage, and nothing waits on the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from uniprune.errors import UnsupportedError

ATTRIBUTE = "uniprune_state"
"""Attribute of a KV cache that holds its `CacheState`."""
HOST = torch.device("cpu")


# --- bookkeeping ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class KeptTokens:
    """The tokens that enter decoder layer `layer` and all later ones; tensors on the CPU.

    Attributes:
        layer: first layer that holds this sequence.
        index: [B, n] positions in the un-pruned sequence, left-padded with 0, ascending.
        valid: [B, n] False at padding.
        lengths: valid tokens of every row.
    """

    layer: int
    index: Tensor
    valid: Tensor
    lengths: tuple[int, ...]

    @property
    def padded(self) -> bool:
        """Return whether rows have different lengths."""
        return min(self.lengths) < self.index.shape[1]

    def columns(self, positions: Tensor, row: int | slice = slice(None)) -> Tensor:
        """Return the columns of un-pruned `positions`, [m] in one row or [B, m] in all; any column for absent ones."""
        # Padding counts as position 0 and comes first: the last of equal entries is the token.
        return (torch.searchsorted(self.index[row], positions, right=True) - 1).clamp(min=0)


def active(stages: Sequence[KeptTokens], layer: int) -> KeptTokens | None:
    """Return the stage in force at `layer`: the last one at or before it; `stages` are in layer order."""
    found = None
    for stage in stages:
        if stage.layer <= layer:
            found = stage
    return found


def pack(layer: int, rows: Sequence[Tensor], index: Tensor) -> tuple[KeptTokens, Tensor]:
    """Repack the surviving columns of every row, left-padded to the longest row.

    Args:
        layer: the first layer that holds the new sequence.
        rows: per batch item, the sorted columns of the current sequence that survive.
        index: [B, n] un-pruned position of every current column.

    Returns:
        The new sequence, and [B, n'] the current column each new column is gathered from.
    """
    width, lengths = max(map(len, rows)), tuple(map(len, rows))
    columns = pad_sequence(list(rows), batch_first=True, padding_side="left")
    valid = torch.arange(width) >= width - torch.tensor(lengths)[:, None]
    return KeptTokens(layer, index.gather(1, columns).where(valid, 0), valid, lengths), columns


def renumbered(kept: KeptTokens, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return compact positions: survivors take the first positions of their row, as in a prompt that was always short.

    Args:
        kept: the surviving tokens.
        real: [B, L] validity of the un-pruned prompt.

    Returns:
        [B, n] un-pruned positions whose rotary rows to use, and [B, 1] the decrement of all later positions.
    """
    index, shift = torch.zeros_like(kept.index), []
    for b, length in enumerate(kept.lengths):
        positions = real[b].nonzero()[:, 0]
        index[b, kept.valid[b]] = positions[:length]
        shift.append(len(positions) - length)
    return index, torch.tensor(shift)[:, None]


def following(positions: Tensor) -> Tensor:
    """Return [..., B, 1] position ids of the token after a prompt with position ids `positions` [..., B, L].

    With M-RoPE it is the one after the largest of the three axes, as in the model: frames of a video may lie further
    apart in time than their tokens are many, so an earlier position may be larger. A fourth row counts tokens.
    """
    after: Tensor = positions[..., -1:] + 1
    if positions.dim() == 2:
        return after
    largest = positions[-3:].amax((0, -1)).add(1)[None, :, None]
    return torch.cat((after[:-3], largest.expand_as(after[-3:])))


# --- tensors of the model ---------------------------------------------------------------------------------------
def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return integer or boolean tensors as int64 on the CPU; those of one device in one transfer."""
    found = list(tensors)
    groups: dict[torch.device, list[int]] = {}
    for place, tensor in enumerate(tensors):
        groups.setdefault(tensor.device, []).append(place)
    for device, places in groups.items():
        parts = [tensors[place].long() for place in places]
        if device != HOST:
            together = torch.cat([part.flatten() for part in parts]).to(HOST).split([part.numel() for part in parts])
            parts = [flat.view(part.shape) for flat, part in zip(together, parts, strict=True)]
        for place, part in zip(places, parts, strict=True):
            found[place] = part
    return found


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; from the CPU without waiting: memory that is not pinned is copied out at once."""
    return tensor.to(device, non_blocking=tensor.device == HOST)


def take(x: Tensor, columns: Tensor) -> Tensor:
    """Gather rows `columns` [B, n'] of `x` [B or 1, n, D], on the device of `x`."""
    where = to_device(columns, x.device)[..., None].expand(-1, -1, x.shape[-1])
    return x.expand(columns.shape[0], -1, -1).gather(1, where)


def replace_tokens(hidden: Tensor, replaced: Sequence[tuple[int, Tensor, Tensor]]) -> Tensor:
    """Return `hidden` [B, n, D] with (row, columns, new tokens) written in; the input is not changed."""
    if replaced:
        hidden = hidden.clone()
    for row, columns, tokens in replaced:
        hidden[row, to_device(columns, hidden.device)] = tokens
    return hidden


# --- KV cache ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class CacheState:
    """The pruning of each layer of one KV cache; an attribute of the cache, so a deep copy keeps it.

    Attributes:
        stages: pruned sequences in layer order.
        prompt_length: length of the un-pruned prompt, padding included.
        next_position: [..., B, 1] position ids of the first generated token.
        shift: [B, 1] decrement of every later position id under compact positions, else None.
    """

    stages: tuple[KeptTokens, ...]
    prompt_length: int
    next_position: Tensor
    shift: Tensor | None

    def length(self, layer: int) -> int:
        """Return the number of columns that entered `layer` in the prefill."""
        kept = active(self.stages, layer)
        return self.prompt_length if kept is None else kept.index.shape[1]


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


def cached_layers(cache: Any) -> list[CachedLayer] | None:
    """Return the sizes of every layer of a cache after a prefill, from the tensors that hold it.

    None if some layer is not held as tensors [B, heads, n, d] or states [B, ...] (quantised caches).
    """
    sizes = []
    for layer in cache.layers if cache is not None else ():
        token, columns, state = 0, 0, 0
        if hasattr(layer, "get_seq_length"):
            for part in (getattr(layer, "keys", None), getattr(layer, "values", None)):
                if not isinstance(part, Tensor) or part.dim() != 4:
                    return None
                _, heads, columns, width = part.shape
                token += heads * width * part.element_size()
        for states in (getattr(layer, "conv_states", {}), getattr(layer, "recurrent_states", {})):
            state += sum(part[0].numel() * part.element_size() for part in states.values() if part is not None)
        sizes.append(CachedLayer(token, columns, state))
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
        width = held.index.shape[1]
        if cache.offloading or not _grows(layer, width):
            kind = f"offloaded {type(layer).__name__}" if cache.offloading else type(layer).__name__
            raise UnsupportedError(
                f"evicting tokens from the KV cache needs a DynamicCache on the model's device, but layer {number} is "
                f"a {kind}; leave out cache_implementation or turn eviction off"
            )
        keys = layer.keys
        # A windowed layer holds its last tokens only: one that it no longer holds is outside the window of all to come,
        # so that any key may stand in its place.
        columns = held.columns(last.index) - (width - keys.shape[-2])
        if hasattr(layer, "cumulative_length"):
            layer.cumulative_length = columns.shape[1]
        if keys.shape[-2] < width:
            columns = columns[:, -layer.sliding_window + 1 :]
        columns = to_device(columns.clamp(min=0), keys.device)[:, None, :, None]
        layer.keys = keys.gather(2, columns.expand(-1, keys.shape[1], -1, keys.shape[-1]))
        layer.values = layer.values.gather(2, columns.expand(-1, layer.values.shape[1], -1, layer.values.shape[-1]))
    before = [stage for stage in stages if stage.layer < first]
    return [*before, KeptTokens(first, last.index, last.valid, last.lengths)]
