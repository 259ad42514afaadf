"""Compaction: dropping tokens from a padded batch and giving the decoder layers masks and positions that fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from uniprune.engine.cache import KeptTokens, active
from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import ModelAdapter


def pack(layer: int, rows: Sequence[Tensor], index: Tensor) -> tuple[KeptTokens, Tensor]:
    """Repack the surviving columns of every row, left-padded to the longest row.

    Args:
        layer: the first layer that sees the new sequence.
        rows: per batch item, the sorted columns of the current sequence that survive.
        index: [B, n] un-pruned position of every current column.

    Returns:
        the new sequence, and [B, n'] the current column each new column is gathered from.
    """
    width, lengths = max(map(len, rows)), tuple(map(len, rows))
    columns = pad_sequence(list(rows), batch_first=True, padding_side="left")
    valid = torch.arange(width) >= width - torch.tensor(lengths)[:, None]
    return KeptTokens(layer, index.gather(1, columns).where(valid, 0), valid, lengths), columns


def take(x: Tensor, columns: Tensor) -> Tensor:
    """Rows `columns` [B, n'] of `x` [B or 1, n, D], on the device of `x`."""
    where = to_device(columns, x.device)[..., None].expand(-1, -1, x.shape[-1])
    return x.expand(columns.shape[0], -1, -1).gather(1, where)


def replace_tokens(hidden: Tensor, replaced: Sequence[tuple[int, Tensor, Tensor]]) -> Tensor:
    """`hidden` [B, n, D] with (row, columns, new tokens) written in; the input is left as it is."""
    if replaced:
        hidden = hidden.clone()
    for row, columns, tokens in replaced:
        hidden[row, to_device(columns, hidden.device)] = tokens
    return hidden


def renumbered(kept: KeptTokens, real: Tensor) -> tuple[Tensor, Tensor]:
    """Compact positions: survivors take the first positions of their row, as if the prompt had always been short.

    `real` [B, L] is the validity of the un-pruned prompt.

    Returns:
        [B, n] un-pruned positions whose rotary rows to use, and [B, 1] what later positions must be lowered by.
    """
    index, shift = torch.zeros_like(kept.index), []
    for b, length in enumerate(kept.lengths):
        positions = real[b].nonzero()[:, 0]
        index[b, kept.valid[b]] = positions[:length]
        shift.append(len(positions) - length)
    return index, torch.tensor(shift)[:, None]


HOST = torch.device("cpu")
PIXELS = ("pixel_values", "pixel_values_videos")


@dataclass(frozen=True)
class Tokens:
    """A batch's sequences, on the host.

    Attributes:
        ids: [B, L] input ids, None for prompts given as embeddings.
        visual: [B, L] True at visual placeholders. real: [B, L] False at padding.
    """

    ids: Tensor | None
    visual: Tensor
    real: Tensor


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Integer or boolean tensors as int64 on the host; those of one device in one transfer."""
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
    """A tensor on a device; from the host without waiting: memory that is not pinned is copied out at once."""
    return tensor.to(device, non_blocking=tensor.device == HOST)


def reader(family: ModelAdapter, kwargs: dict[str, Any]) -> Callable[[], Tokens]:
    """What brings the tokens of a forward on an empty cache to the host. Holds no more than their ids and mask.

    Raises:
        UnsupportedError: the forward carries images and videos.
    """
    carried = visual_inputs(kwargs)
    if len(carried) > 1:
        raise UnsupportedError("images and videos in one prompt are not supported; pass one kind of visual input")
    ids = kwargs.get("input_ids")
    first = placeholders(family, kwargs) if ids is None else ids
    mask = valid_tokens(kwargs.get("attention_mask"), first.shape[1])
    wanted = family.visual_token_ids

    def read() -> Tokens:
        found, *masks = to_host([first] if mask is None else [first, mask])
        visual = found.bool() if ids is None else marked(found, wanted)
        if not carried:  # a model can *generate* the image id: without image inputs it is text
            visual = torch.zeros_like(visual)
        real = masks[0].bool().expand_as(visual) if masks else torch.ones_like(visual)
        return Tokens(None if ids is None else found, visual, real)

    return read


def visual_inputs(kwargs: dict[str, Any]) -> list[str]:
    """Names of the visual inputs a forward carries: pixels, or features encoded before it."""
    encoded = [name for name, output in (kwargs.get("mm_encoder_outputs") or {}).items() if output is not None]
    return encoded + [name for name in PIXELS if kwargs.get(name) is not None]


def placeholders(family: ModelAdapter, kwargs: dict[str, Any]) -> Tensor:
    """[B, L] True at image and video placeholders, where the forward's inputs lie."""
    if kwargs.get("input_ids") is not None:
        return marked(kwargs["input_ids"], family.visual_token_ids)
    embeds, table = kwargs["inputs_embeds"], family.model.get_input_embeddings().weight
    return (embeds.unsqueeze(2) == table[family.visual_token_ids].to(embeds.device)).all(-1).any(-1)


def marked(ids: Tensor, wanted: Sequence[int]) -> Tensor:
    """True where `ids` are among a few `wanted` ones."""
    return reduce(or_, [ids == one for one in wanted])


def valid_tokens(mask: Any, length: int) -> Tensor | None:
    """[B or 1, L] False (or 0) at padding, from whatever form of attention mask the caller passed; None without one."""
    if isinstance(mask, dict):
        mask = next(iter(mask.values()))
    if mask is None or mask.dim() == 2:
        return mask
    last = mask[:, 0, -1, :length]  # already built (static cache): the last query row sees exactly the valid tokens
    return last.clone() if last.dtype == torch.bool else last == 0


def evict(cache: Any, first: int, stages: Sequence[KeptTokens], whole: KeptTokens) -> list[KeptTokens]:
    """Gather the keys and values of layers `first` and later down to the survivors of the last stage.

    Keys keep the rotary phase of their original position, and generated tokens continue the original positions, so
    distances between what remains are those of the full prompt.

    Args:
        cache: KV cache of a finished prefill.
        first: first layer to cut.
        stages: what each stage kept, in layer order.
        whole: the un-pruned prompt, which layers before the first stage hold.

    Returns:
        The stages as decoding must see them: from `first` on, every layer holds the same tokens.

    Raises:
        UnsupportedError: a layer's keys are not a plain growing tensor (static or quantised caches).
    """
    last = stages[-1]
    if first >= last.layer:
        return list(stages)
    for number in range(first, last.layer):
        held = active(stages, number) or whole
        layer = cache.layers[number]
        keys = getattr(layer, "keys", None)
        if not isinstance(keys, Tensor) or keys.dim() != 4 or keys.shape[-2] != held.index.shape[1]:
            raise UnsupportedError(
                f"evicting tokens from the KV cache needs a DynamicCache, but layer {number} is a "
                f"{type(layer).__name__}; leave out cache_implementation or turn eviction off"
            )
        columns = to_device(held.columns(last.index), keys.device)[:, None, :, None]
        layer.keys = keys.gather(2, columns.expand(-1, keys.shape[1], -1, keys.shape[-1]))
        layer.values = layer.values.gather(2, columns.expand(-1, layer.values.shape[1], -1, layer.values.shape[-1]))
    before = [stage for stage in stages if stage.layer < first]
    return [*before, KeptTokens(first, last.index, last.valid, last.lengths)]
