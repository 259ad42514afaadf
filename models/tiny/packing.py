"""Many questions after one image in a single forward pass, with exactly the numbers of each question alone.

The sequence is [before-image, visual tokens, after-image, block, block, …]. A block attends to everything up to the
image, and to itself; its positions restart right after the image. So one pass over the visual tokens trains a dozen
answers, and `generate` on a single question computes the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedTokenizerFast
from transformers.masking_utils import sdpa_mask

from uniprune.synthetic import GRID

from .build import PREFIX
from .data import SceneBatch

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
    """Embeddings [B, S, D], positions [B, S] or [3, B, S] and additive mask [B, 1, S, S] of a sequence."""

    embeddings: Tensor
    positions: Tensor
    mask: Tensor


def pack(
    family: str, model: Any, tokenizer: PreTrainedTokenizerFast, visual: Tensor, batch: SceneBatch, keep: Tensor | None
) -> Packed:
    """Assemble the sequence of a batch.

    `visual` is [B, N, D], the projected visual tokens; `keep` is [B, K], the sorted indices of those that stay (they
    keep their positions), or None for all.
    """
    size, device = len(visual), visual.device
    embed = model.get_input_embeddings()
    before, after = (
        tokenizer(t, add_special_tokens=False, return_tensors="pt").input_ids[0].long().to(device)
        for t in PREFIX[family]
    )
    image_positions, after_image = _image_positions(family, len(before), device)
    if keep is not None:
        visual = visual.gather(1, keep[..., None].expand(-1, -1, visual.shape[-1]))
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
    return Packed(torch.cat([head, embed(batch.ids)], 1), positions if rows > 1 else positions[0], mask)


def answer_states(model: Any, packed: Packed, text: int) -> Tensor:
    """Compute the final hidden states [B, text, D] of the packed blocks."""
    out = model.get_decoder()(
        inputs_embeds=packed.embeddings, attention_mask=packed.mask, position_ids=packed.positions, use_cache=False
    )
    states: Tensor = out.last_hidden_state[:, -text:]
    return states


def _image_positions(family: str, start: int, device: torch.device) -> tuple[Tensor, int]:
    """Return ([rows, N] positions of the visual tokens, position right after the image): 1-D, or Qwen's (t, h, w)."""
    n = GRID * GRID
    flat = torch.arange(n, device=device)
    if family != "qwen2.5-vl":
        return start + flat[None], start + n
    return start + torch.stack([torch.zeros_like(flat), flat // GRID, flat % GRID]), start + GRID
