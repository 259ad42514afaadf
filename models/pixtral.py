"""Pixtral's tower: all images in one sequence, each attending to itself; a row of an image is a run of placeholders."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import Span, Tried, consecutive
from uniprune.modeling.image_grouping import Grouping, any_runs
from uniprune.modeling.patch_grid import PatchGridAdapter
from uniprune.modeling.random_images import Size
from uniprune.modeling.shown_areas import WHOLE, Area, check_described
from uniprune.modeling.tiny import IMAGE, VISION, TinyModel
from uniprune.pruning.functional import rotate_half
from uniprune.pruning.view import Grid

from ._rectangles import rectangle

PATCH = 14


class TinyPixtral(TinyModel):
    """Four Pixtral layers; images of any size."""

    dynamic: ClassVar[bool] = True

    def config(self, text: dict[str, Any]) -> Any:
        """LlavaConfig."""
        from transformers import LlavaConfig, MistralConfig

        return LlavaConfig(
            vision_config=tiny_tower(),
            text_config=MistralConfig(**text, head_dim=16, sliding_window=None),
            image_token_index=IMAGE,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            image_seq_length=1,
        )

    def visual_inputs(self, rows: Sequence[Sequence[dict[str, Tensor]]]) -> dict[str, Tensor]:
        """Images padded to the largest one, as by the processor; `image_sizes` are theirs without padding."""
        images = [image for row in rows for image in row]
        if not images:
            return {}
        sizes = torch.cat([image["image_sizes"] for image in images])
        pixels = torch.zeros(len(images), 3, *sizes.amax(0).tolist())
        for whole, image, (height, width) in zip(pixels, images, sizes.tolist(), strict=True):
            whole[:, :height, :width] = image["pixel_values"][0]
        return {"pixel_values": pixels, "image_sizes": sizes}


def tiny_tower() -> Any:
    """PixtralVisionConfig of four layers."""
    from transformers import PixtralVisionConfig

    size = {"num_hidden_layers": 4, "num_attention_heads": 4, "head_dim": 8}
    return PixtralVisionConfig(**VISION, **size, image_size=32 * PATCH, patch_size=PATCH)


class Pixtral(PatchGridAdapter):
    """Pixtral (arXiv 2410.07073): images of any size, 16 px a token; the processor ends every row with a text token.

    Its checkpoints have LLaVA's model type; their tower tells them.
    """

    tried: ClassVar[Tried] = {"text model": ("mistral",), "tower": ("pixtral",), "feature strategy": ("full",)}

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.has_cls = False
        self.packed = "cu_seq_lens_q" in inspect.getsource(type(self.vision))  # transformers 5.17 passes no bounds
        kernel = str(self.vision.config._attn_implementation)
        if "flash" in kernel and not self.packed:
            raise UnsupportedError(
                f"this release of transformers passes attention kernel {kernel!r} no bounds of images, so those of a "
                "batch would attend to each other in Pixtral's tower; use --attn sdpa, or transformers 5.23"
            )
        self.merge = getattr(model.config, "spatial_merge_size", 1)

    def image_grouping(self) -> Grouping:
        """An image is a grid, whatever stands between its rows."""
        return any_runs

    def vision_blocks(self) -> Sequence[nn.Module]:
        """Blocks of the tower."""
        blocks: Sequence[nn.Module] = self.vision.transformer.layers
        return blocks

    def vision_attention(self, block: Any) -> nn.Module:
        """The block's `attention`."""
        attention: nn.Module = block.attention
        return attention

    def grids(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Grid]:
        """From the sizes without padding."""
        sizes = kwargs.get("image_sizes")
        if sizes is None:
            return super().grids(args, kwargs)
        return [(1, *self._size_of(size)) for size in torch.as_tensor(sizes).tolist()]

    def vision_qk(self, attention: Any, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, float]:
        """Separate projections, rotated by row and column."""
        shape = (*hidden.shape[:-1], attention.num_heads, attention.head_dim)
        cos, sin = kwargs["position_embeddings"]

        def rotated(projection: Any) -> Tensor:
            x: Tensor = projection(hidden).view(shape).transpose(1, 2)
            turned: Tensor = x * cos + rotate_half(x) * sin
            return turned

        return rotated(attention.q_proj), rotated(attention.k_proj), attention.scaling

    def vision_spans(self, hidden: Tensor, kwargs: dict[str, Any], grids: Sequence[Grid], block: int) -> list[Span]:
        """The images."""
        return consecutive(length for grid in grids for length in self.attention_spans(grid, block))

    def attention_spans(self, grid: Grid, block: int) -> list[int]:
        """Whole images."""
        t, h, w = grid
        return [t * h * w * self.merge**2]

    def to_tokens(self, values: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """Average the patches of a token."""
        return [patches.mean(1) for patches in self._patches(values.float(), grids)]

    def features(self, entering: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """The patches of a token side by side."""
        return [patches.flatten(1) for patches in self._patches(entering, grids)]

    def project(self, features: Tensor) -> Tensor:
        """The projector treats tokens one by one."""
        tokens: Tensor = self.projector.forward(features)
        return tokens

    @property
    def usual_tokens(self) -> int:
        """An image of 32 x 32 tokens."""
        return 1024

    def image_of(self, tokens: int) -> tuple[Size, int]:
        """The rectangle nearest to a square; sides at most 1:4 apart."""
        return rectangle(tokens), 1

    def image_areas(self, processor: Any, size: Size, images: int) -> Sequence[Area]:
        """The whole image, stretched to whole tokens."""
        check_described(processor.image_processor, "PixtralImageProcessor")
        return [WHOLE]

    def random_image(self, size: Size, tiles: int, generator: torch.Generator) -> dict[str, Tensor]:
        """[1, 3, H, W], and the size without padding."""
        height, width = (side * patch * self.merge for side, patch in zip(size, self._patch, strict=True))
        pixels = torch.randn(1, 3, height, width, generator=generator)
        return {"pixel_values": pixels, "image_sizes": torch.tensor([[height, width]])}

    def image_ids(self, size: Size, tiles: int) -> list[int]:
        """One text token ends every row but the last, another one the image; configurations do not name their ids."""
        image, (height, width) = self.visual_token_ids[0], size
        row_end, image_end = (image + 2, image + 3) if image < 100 else (image - 1, image - 2)
        return [*[*[image] * width, row_end] * (height - 1), *[image] * width, image_end]

    def _patches(self, values: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """[N, patches of a token, C] per grid of values in raster order of patches."""
        side, flat = self.merge, values.reshape(-1, values.shape[-1])
        images = flat.split([h * w * side**2 for _, h, w in grids])
        cut = [image.view(h, side, w, side, -1) for image, (_, h, w) in zip(images, grids, strict=True)]
        return [one.transpose(1, 2).reshape(-1, side**2, values.shape[-1]) for one in cut]
