"""Many questions after one image in a single forward pass, with exactly the numbers of each question alone.

The sequence is [before-image, visual tokens, after-image, block, block, …]. A block attends to everything up to the
image, and to itself; its positions restart right after the image. So one pass over the visual tokens trains a dozen
answers, and `generate` on a single question computes the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedTokenizerFast
from transformers.masking_utils import sdpa_mask

from uniprune.synthetic import GRID

from .build import PREFIX, QWEN
from .data import SceneBatch
from .vision import Features

ATTENTION = "packed"


def packed_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, scaling: float, **other: Any
) -> tuple[Tensor, None]:
    """Compute softmax(q k^T + mask) v in the input dtype: on CPU faster than the fused kernel for short heads."""
    batch, heads, length, _ = query.shape
    mask = attention_mask.to(query.dtype).expand(batch, heads, length, length).reshape(batch * heads, length, length)
    q, k, v = (t.flatten(0, 1) for t in (query, key, value))
    out = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scaling).softmax(-1) @ v
    return out.view(batch, heads, length, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


@dataclass
class Packed:
    """Embeddings [B, S, D], positions [B, S] or [3, B, S] and additive mask [B, 1, S, S] of a sequence.

    `deepstack` holds arguments of the decoder: features of the visual tokens for its first layers, and where these are.
    """

    embeddings: Tensor
    positions: Tensor
    mask: Tensor
    deepstack: dict[str, Any] = field(default_factory=dict)


def pack(
    family: str,
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    features: Features,
    batch: SceneBatch,
    keep: Tensor | None,
) -> Packed:
    """Assemble the sequence of a batch.

    `keep` is [B, K], the sorted indices of the visual tokens that stay (with their positions and their features for
    the first decoder layers), or None for all.
    """
    visual, deepstack = features.tokens, list(features.deepstack)
    size, device = len(visual), visual.device
    embed = model.get_input_embeddings()
    before, after = (
        tokenizer(t, add_special_tokens=False, return_tensors="pt").input_ids[0].long().to(device)
        for t in PREFIX[family]
    )
    image_positions, after_image = _image_positions(family, len(before), device)
    if keep is not None:
        visual, *deepstack = (f.gather(1, keep[..., None].expand(-1, -1, f.shape[-1])) for f in (visual, *deepstack))
        image_positions = image_positions[:, keep]
    else:
        image_positions = image_positions[:, None].expand(-1, size, -1)
    head = torch.cat([embed(before).expand(size, -1, -1), visual, embed(after).expand(size, -1, -1)], 1)
    rows = image_positions.shape[0]

    def line(start: int, count: int) -> Tensor:
        return torch.arange(start, start + count, device=device).expand(rows, size, count)

    text_positions = (after_image + len(after) + batch.offset).expand(rows, -1, -1)
    positions = torch.cat([line(0, len(before)), image_positions, line(after_image, len(after)), text_positions], -1)

    prefix = head.shape[1]
    block = torch.cat([batch.block.new_zeros(size, prefix), torch.where(batch.block > 0, batch.block, -1)], 1)
    total = block.shape[1]
    same = (block[:, :, None] == block[:, None, :]) | (block[:, None, :] == 0)
    causal = torch.ones(total, total, dtype=torch.bool, device=device).tril()
    mask = torch.zeros(size, 1, total, total, dtype=torch.bfloat16, device=device)
    mask.masked_fill_(~(same & causal)[:, None], torch.finfo(torch.bfloat16).min)
    packed = Packed(torch.cat([head, embed(batch.ids)], 1), positions if rows > 1 else positions[0], mask)
    if deepstack:
        shown = torch.zeros(size, total, dtype=torch.bool, device=device)
        shown[:, len(before) : len(before) + visual.shape[1]] = True
        added = [feature.flatten(0, 1) for feature in deepstack]
        packed.deepstack = {"visual_pos_masks": shown, "deepstack_visual_embeds": added}
    return packed


def answer_states(model: Any, packed: Packed, text: int) -> Tensor:
    """Compute the final hidden states [B, text, D] of the packed blocks."""
    out = model.get_decoder()(
        inputs_embeds=packed.embeddings,
        attention_mask=packed.mask,
        position_ids=packed.positions,
        use_cache=False,
        **packed.deepstack,
    )
    states: Tensor = out.last_hidden_state[:, -text:]
    return states


def _image_positions(family: str, start: int, device: torch.device) -> tuple[Tensor, int]:
    """Return ([rows, N] positions of the visual tokens, position right after the image): 1-D, or Qwen's (t, h, w)."""
    n = GRID * GRID
    flat = torch.arange(n, device=device)
    if family not in QWEN:
        return start + flat[None], start + n
    return start + torch.stack([torch.zeros_like(flat), flat // GRID, flat % GRID]), start + GRID
