"""Qwen2.5-VL: a windowed tower without CLS, dynamic resolution, four patches to a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn, tensor

from uniprune.modeling.adapter import ModelAdapter, Span, TextAfter, Tried, consecutive
from uniprune.modeling.input_forms import GridForms, check_processor
from uniprune.modeling.patch_grid import CLIP as CLIP_PIXELS
from uniprune.modeling.random_images import Size
from uniprune.modeling.shown_areas import WHOLE, Area, Shown, check_described
from uniprune.modeling.tiny import IMAGE, IMAGE_END, IMAGE_START, VIDEO, VISION, TinyModel
from uniprune.pruning.functional import rotate_half
from uniprune.pruning.input_stage import Forms
from uniprune.pruning.view import Grid
from uniprune.registry import register_model

from ._rectangles import rectangle

PATCH = 14
CLIP = (2, 4, 6)
"""Steps in time, and patches per side, of the videos of tiny models."""


class TinyQwen2_5_VL(TinyModel):
    """Four blocks, two of them with windows of 2 x 2 tokens; images of any size."""

    dynamic: ClassVar[bool] = True
    opening: ClassVar[tuple[int, ...]] = (IMAGE_START,)

    def config(self, text: dict[str, Any]) -> Any:
        """Qwen2_5_VLConfig."""
        from transformers import Qwen2_5_VLConfig

        vision = {
            **VISION,
            "depth": 4,
            "num_heads": 4,
            "patch_size": PATCH,
            "window_size": 4 * PATCH,
            "out_hidden_size": text["hidden_size"],
            "fullatt_block_indexes": [1, 3],
        }
        rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
        return Qwen2_5_VLConfig(
            vision_config=vision,
            text_config={"rope_parameters": rope, **text},
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            vision_start_token_id=IMAGE_START,
            vision_end_token_id=IMAGE_END,
        )

    def clip(self, generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
        """Two steps in time of 2 x 3 tokens."""
        vision = self.adapter.vision.config
        pixels = torch.randn(prod(CLIP), 3 * vision.temporal_patch_size * vision.patch_size**2, generator=generator)
        return self.clip_ids(prod(CLIP[1:]) // 4), {"pixel_values_videos": pixels, "video_grid_thw": tensor([CLIP])}

    def clip_ids(self, tokens: int) -> list[int]:
        """Return the ids of a video of two steps of so many tokens: one run."""
        return [IMAGE_START, *[VIDEO] * 2 * tokens, IMAGE_END]


@register_model("qwen2_5_vl", tiny=TinyQwen2_5_VL)
class Qwen2_5_VL(ModelAdapter):
    """Qwen2.5-VL (arXiv 2502.13923): window attention outside a few full blocks, 2x2 merger, M-RoPE.

    VLMEvalKit registers it without prompts of its own, so they are the benchmark's under either policy.

    The tower holds patches in window order, four consecutive ones to an LLM token. Scores of a windowed block are
    normalised inside each window and not comparable between windows: methods should name a full-attention block.
    """

    tried: ClassVar[Tried] = {"text model": ("qwen2_5_vl_text",), "tower": ("qwen2_5_vl_vision",)}
    videos: ClassVar[bool] = True
    mixes: ClassVar[bool] = True
    packed = True
    normalisation: tuple[Sequence[float], Sequence[float]] = CLIP_PIXELS

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.vision = self.base.visual
        self.projector = self.vision.merger
        self.merge: int = self.vision.spatial_merge_size

    def vision_blocks(self) -> Sequence[nn.Module]:
        """Blocks of the tower."""
        blocks: Sequence[nn.Module] = self.vision.blocks
        return blocks

    def vision_attention(self, block: Any) -> nn.Module:
        """The block's `attn`."""
        attention: nn.Module = block.attn
        return attention

    def grids(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Grid]:
        """From the processor's `grid_thw`, divided by the merger."""
        patches = kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]
        return [(t, h // self.merge, w // self.merge) for t, h, w in patches.tolist()]

    def vision_qk(self, attention: Any, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, float]:
        """Fused projection, rotated in float32 as the tower does."""
        projected = attention.qkv(hidden).reshape(hidden.shape[0], 3, attention.num_heads, -1)
        both = projected[:, :2].permute(1, 2, 0, 3).to(torch.float32, copy=True)
        cos, sin = (part.float() for part in kwargs["position_embeddings"])
        turned = rotate_half(both).mul_(sin)
        query, key = both.mul_(cos).add_(turned).to(projected.dtype)[:, None]
        return query, key, attention.scaling

    def vision_spans(self, hidden: Tensor, kwargs: dict[str, Any], grids: Sequence[Grid], block: int) -> list[Span]:
        """The block's windows, or whole frames in a full-attention block: from the grids, without waiting for a GPU."""
        return consecutive(length for grid in grids for length in self.attention_spans(grid, block))

    def attention_spans(self, grid: Grid, block: int) -> list[int]:
        """Frames in full-attention blocks, windows in the others."""
        t, h, w = grid
        if block in self.vision.fullatt_block_indexes:
            return [h * w * self.merge**2] * t
        heights, widths = ([min(self._side, n - start) for start in range(0, n, self._side)] for n in (h, w))
        return [height * width * self.merge**2 for height in heights for width in widths] * t

    def to_tokens(self, values: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """Average each group of merged patches, then undo the window order."""
        tokens = values.reshape(-1, self.merge**2, values.shape[-1]).mean(1, dtype=torch.float32)
        return self._raster(tokens, grids)

    def feature_block(self) -> int:
        """The last block that attends to the whole image: windowed attention does not compare windows."""
        return int(max(self.vision.config.fullatt_block_indexes))

    def whole_image_blocks(self) -> Sequence[int]:
        """Those without windows."""
        return sorted(self.vision.fullatt_block_indexes)

    def features(self, entering: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """The patches of a token side by side, out of the window order."""
        return self._raster(entering.reshape(-1, self.merge**2 * entering.shape[-1]), grids)

    def project(self, features: Tensor) -> Tensor:
        """The merger takes patches, and always the next four for a token."""
        tokens: Tensor = self.projector.forward(features.reshape(-1, features.shape[-1] // self.merge**2))
        return tokens

    def input_forms(self, processor: Any, images: int) -> Forms:
        """Any rectangle, if the processor is that of Qwen2-VL."""
        check_processor(processor, "Qwen2VLImageProcessor")
        return GridForms.of(processor)

    def image_areas(self, processor: Any, size: Size, images: int) -> Sequence[Area]:
        """The whole image, stretched to whole tokens."""
        check_described(processor.image_processor, "Qwen2VLImageProcessor", "Glm4vImageProcessor")
        return [WHOLE]

    def clip_areas(self, processor: Any, size: Size, frames: int) -> Shown:
        """Whole frames, two to a step in time."""
        return Shown((WHOLE,), frames, processor.video_processor.temporal_patch_size)

    def whole_tower(self) -> str | None:
        """None."""
        return None

    def patch_places(self, grids: Sequence[Grid]) -> Tensor:
        """The next `merge` x `merge` places of each token in window order."""
        tokens = window_places(tuple(grids), self._side)
        return tokens[:, None] * self.merge**2 + torch.arange(self.merge**2)

    def token_pixels(self, pixels: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """Those of the next `merge` x `merge` patches, of all images that form a patch."""
        config, merged = self.vision.config, self.merge**2
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in self.normalisation)
        shape = (-1, merged, config.in_channels, config.temporal_patch_size, config.patch_size**2)
        tokens = (pixels.view(shape) * std + mean).flatten(1)
        return list(tokens.split(list(map(prod, grids))))

    @property
    def usual_tokens(self) -> int:
        """The smallest image that the papers allow."""
        return 256

    def image_of(self, tokens: int) -> tuple[Size, int]:
        """The rectangle nearest to a square; sides at most 1:4 apart."""
        return rectangle(tokens), 1

    def random_image(self, size: Size, tiles: int, generator: torch.Generator) -> dict[str, Tensor]:
        """[patches, pixels of all frames of a patch] and the grid of patches."""
        config, (height, width) = self.vision.config, (self.merge * side for side in size)
        values = config.in_channels * config.temporal_patch_size * config.patch_size**2
        pixels = torch.randn(height * width, values, generator=generator)
        return {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, height, width]])}

    def text_after(self) -> Mapping[int, TextAfter]:
        """The grid's width after the first id, of images and videos."""
        config = self.model.config
        return {config.image_token_id: "width", config.video_token_id: "width"}

    def id_arguments(self, ids: Tensor) -> dict[str, Tensor]:
        """1 at image ids and 2 at video ids, for M-RoPE."""
        config = self.model.config
        return {"mm_token_type_ids": (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()}

    @property
    def _side(self) -> int:
        """Side of a window in tokens."""
        return int(self.vision.window_size // self.merge // self.vision.patch_size)

    def _raster(self, tokens: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """[N, C] per grid of tokens in window order."""
        places = window_places(tuple(grids), self._side).to(tokens.device, non_blocking=True)
        return list(tokens.index_select(0, places).split([t * h * w for t, h, w in grids]))


@lru_cache(maxsize=64)
def window_places(grids: tuple[Grid, ...], side: int) -> Tensor:
    """[tokens] place of every token of the raster when each frame is read window by window of `side` x `side` tokens.

    A tensor that is not to be changed.
    """
    orders, start = list[Any](), 0
    for t, h, w in grids:
        rows, columns = np.divmod(np.arange(h * w), w)
        order = np.argsort(rows // side * w + columns // side, kind="stable")
        orders += [start + frame * h * w + order for frame in range(t)]
        start += t * h * w
    return torch.from_numpy(np.argsort(np.concatenate(orders)))
