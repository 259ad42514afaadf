"""The engine keeps its books on the host: one transfer brings a batch's tokens there, nothing waits on the way back.

Which token is what, which survive and where they stand are a few small tensors of integers. On the host they cost no
kernel launch and no synchronisation; a device is handed finished indices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import torch
from torch import Tensor

from uniprune.errors import UnsupportedError
from uniprune.family import Family

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


def reader(family: Family, kwargs: dict[str, Any]) -> Callable[[], Tokens]:
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


def placeholders(family: Family, kwargs: dict[str, Any]) -> Tensor:
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
