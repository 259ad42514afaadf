"""Differentiable visual tokens of each family for training, equal to the model's own, for images of one size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from uniprune.synthetic import CELL, SIZE


class Features(NamedTuple):
    """Output of a tower for B images of N visual tokens.

    Attributes:
        tokens: [B, N, D] projected tokens.
        class_token: [B, C] class token of the last layer, or None.
        deepstack: [B, N, D] each, what is added to the visual tokens after the first decoder layers.
    """

    tokens: Tensor
    class_token: Tensor | None = None
    deepstack: tuple[Tensor, ...] = ()


def _llava(model: Any, pixels: Tensor) -> Features:
    out = model.model.vision_tower(pixels, output_hidden_states=True)
    tokens = out.hidden_states[model.config.vision_feature_layer][:, 1:]
    return Features(model.model.multi_modal_projector(tokens), out.last_hidden_state[:, 0])


def _internvl(model: Any, pixels: Tensor) -> Features:
    inner = model.model
    hidden = inner.vision_tower(pixels).last_hidden_state
    side = int((hidden.shape[1] - 1) ** 0.5)
    grid = hidden[:, 1:].reshape(len(hidden), side, side, -1)
    merged = inner.pixel_shuffle(grid, scale_factor=model.config.downsample_ratio).flatten(1, 2)
    return Features(inner.multi_modal_projector(merged), hidden[:, 0])


def _qwen2_5(model: Any, pixels: Tensor) -> Features:
    """Run the tower's own blocks, with all windows of the batch in one attention call instead of one call each."""
    tower = model.model.visual
    batch, side, merge = len(pixels), SIZE // (CELL // 2), tower.spatial_merge_size
    grid = torch.tensor([[1, side, side]], device=pixels.device)
    index, bounds = get_vision_window_index(
        grid, spatial_merge_size=merge, window_size=tower.window_size, patch_size=tower.patch_size
    )
    window = int(bounds[1] - bounds[0])
    order = (index[:, None] * merge**2 + torch.arange(merge**2, device=index.device)).flatten()

    hidden = tower.patch_embed(to_patches(pixels).flatten(0, 1)).view(batch, side * side, -1)[:, order]
    cos, sin = tower.rotary_pos_emb(hidden[0], get_vision_position_ids(grid, merge))
    cos, sin = cos[order], sin[order]
    for number, block in enumerate(tower.blocks):
        length = side * side if number in tower.fullatt_block_indexes else window
        hidden = hidden + _attend(block.attn, block.norm1(hidden), cos, sin, length)
        hidden = hidden + block.mlp(block.norm2(hidden))
    merged = tower.merger(hidden.flatten(0, 1)).view(batch, side * side // merge**2, -1)
    return Features(merged[:, torch.argsort(index)])


def _qwen3(model: Any, pixels: Tensor) -> Features:
    """Run the tower's own blocks and mergers, with all images of the batch in one attention call."""
    tower = model.model.visual
    batch, side, merge = len(pixels), SIZE // (CELL // 2), tower.spatial_merge_size
    grid = torch.tensor([[1, side, side]], device=pixels.device)
    indices, weights = get_vision_interpolation_indices_and_weights(
        grid,
        num_grid_per_side=tower.num_grid_per_side,
        mode=tower.interpolation_mode,
        align_corners=tower.interpolation_align_corners,
        spatial_merge_size=merge,
    )
    hidden = tower.patch_embed(to_patches(pixels).flatten(0, 1)).view(batch, side * side, -1)
    hidden = hidden + (tower.pos_embed(indices) * weights[..., None]).sum(1)
    cos, sin = tower.rotary_pos_emb(hidden[0], get_vision_position_ids(grid, merge))
    tokens, deepstack = (batch, side * side // merge**2, -1), []
    for number, block in enumerate(tower.blocks):
        hidden = hidden + _attend(block.attn, block.norm1(hidden), cos, sin, side * side)
        hidden = hidden + block.mlp(block.norm2(hidden))
        if number in tower.deepstack_visual_indexes:
            merger = tower.deepstack_merger_list[tower.deepstack_visual_indexes.index(number)]
            deepstack.append(merger(hidden.flatten(0, 1)).view(tokens))
    return Features(tower.merger(hidden.flatten(0, 1)).view(tokens), deepstack=tuple(deepstack))


def _attend(module: Any, x: Tensor, cos: Tensor, sin: Tensor, length: int) -> Tensor:
    """Compute self-attention within consecutive blocks of `length` patches: [B, S, C] -> [B, S, C]."""
    batch, patches, width = x.shape
    q, k, v = module.qkv(x).view(batch, patches, 3, module.num_heads, -1).unbind(2)
    q, k = apply_rotary_pos_emb_vision(q, k, cos, sin)
    blocks = (batch * patches // length, length, module.num_heads, -1)
    q, k, v = (t.reshape(blocks).transpose(1, 2).flatten(0, 1) for t in (q, k, v))
    out = torch.bmm(q * module.scaling, k.transpose(1, 2)).softmax(-1).to(v.dtype) @ v
    out = out.view(blocks[0], module.num_heads, length, -1).transpose(1, 2)
    projected: Tensor = module.proj(out.reshape(batch, patches, width))
    return projected


def to_patches(pixels: Tensor) -> Tensor:
    """Cut [B, 3, SIZE, SIZE] into [B, S, 3 p p] in the order of Qwen's processor: 2 x 2 patches of a token together."""
    batch, channels = pixels.shape[:2]
    p, tokens = CELL // 2, SIZE // CELL
    x = pixels.view(batch, channels, tokens, 2, p, tokens, 2, p)
    return x.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(batch, tokens * tokens * 4, channels * p * p)


VISION: dict[str, Callable[[Any, Tensor], Features]] = {
    "llava": _llava,
    "internvl": _internvl,
    "qwen2.5-vl": _qwen2_5,
    "qwen3-vl": _qwen3,
}
