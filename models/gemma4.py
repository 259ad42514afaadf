"""Gemma 4: images of any shape as padded lists of patches, nine to a token; most decoder layers see a window only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from uniprune.modeling.adapter import ModelAdapter, Span, Tried
from uniprune.modeling.random_images import Size
from uniprune.modeling.shown_areas import WHOLE, Area, check_described
from uniprune.modeling.tiny import IMAGE, IMAGE_END, IMAGE_START, VIDEO, VISION, TinyModel, TinyPrompt
from uniprune.pruning.functional import rotate_half
from uniprune.pruning.view import Grid
from uniprune.registry import register_model

from ._rectangles import rectangle
from .gemma3 import KINDS, WINDOW

PATCH, POOL = 4, 3


class TinyGemma4(TinyModel):
    """As the 31B: values are keys in full layers, which have wider heads; images see themselves in the others."""

    dynamic: ClassVar[bool] = True
    opening: ClassVar[tuple[int, ...]] = (IMAGE_START,)
    decoder: ClassVar[dict[str, Any]] = {
        "hidden_size_per_layer_input": 0,
        "attention_k_eq_v": True,
        "num_global_key_value_heads": 1,
        "use_bidirectional_attention": "vision",
    }
    tower: ClassVar[dict[str, Any]] = {"standardize": True}

    def config(self, text: dict[str, Any]) -> Any:
        """Gemma4Config; `decoder` and `tower` hold what the sizes of the family differ in."""
        from transformers import Gemma4Config, Gemma4TextConfig, Gemma4VisionConfig

        heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8, "num_hidden_layers": 4}
        image = {"patch_size": PATCH, "pooling_kernel_size": POOL, "position_embedding_size": 64}
        common = {"head_dim": 16, "global_head_dim": 32, "sliding_window": WINDOW, "final_logit_softcapping": 30.0}
        return Gemma4Config(
            text_config=Gemma4TextConfig(**{**common, "layer_types": list(KINDS), **text, **self.decoder}),
            vision_config=Gemma4VisionConfig(**VISION, **heads, **image, **self.tower),
            audio_config=None,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            boi_token_id=IMAGE_START,
            eoi_token_id=IMAGE_END,
            audio_token_id=290,
            tie_word_embeddings=False,
        )

    def batch(self, prompts: Sequence[TinyPrompt]) -> dict[str, Tensor]:
        """Pad images to the one with the most patches, as the processor pads all to the most there can be."""
        images = [image for prompt in prompts for image in prompt.images]
        most = max((len(image["image_position_ids"][0]) for image in images), default=0)
        return super().batch(
            [replace(one, images=tuple(_padded(image, most) for image in one.images)) for one in prompts]
        )


@register_model("gemma4", tiny=TinyGemma4)
class Gemma4(ModelAdapter):
    """Gemma 4: one run of at most 280 tokens (other limits: 70 to 1120) per image, in the image's own proportions."""

    tried: ClassVar[Tried] = {
        "text model": ("gemma4_text",),
        "tower": ("gemma4_vision",),
        "rotary positions": ("default, proportional",),
    }
    bare_weights: ClassVar[dict[str, bool]] = {"position_embedding_table": False}

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.vision, self.projector = self.base.vision_tower, self.base.embed_vision
        self.merge = model.config.vision_config.pooling_kernel_size
        if self.decoder.config.use_bidirectional_attention == "vision":
            self.block_kinds = frozenset({"sliding_attention"})

    def vision_blocks(self) -> Sequence[nn.Module]:
        """Blocks of the encoder."""
        blocks: Sequence[nn.Module] = self.vision.encoder.layers
        return blocks

    def vision_attention(self, block: Any) -> nn.Module:
        """The block's `self_attn`."""
        attention: nn.Module = block.self_attn
        return attention

    def grids(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Grid]:
        """From the (x, y) of an image's last patch; padding has -1."""
        places = kwargs["pixel_position_ids"] if "pixel_position_ids" in kwargs else args[1]
        return [(1, (y + 1) // self.merge, (x + 1) // self.merge) for x, y in places.amax(1).tolist()]

    def vision_qk(self, attention: Any, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, float]:
        """Normalised, half of a head rotated by x and half by y; all images as one sequence, for `vision_spans`."""
        heads = (*hidden.shape[:2], -1, 2, attention.head_dim // 2)
        cos, sin = (table.unflatten(-1, (2, -1))[:, :, None] for table in kwargs["position_embeddings"])

        def made(project: nn.Module, norm: nn.Module) -> Tensor:
            parts = norm(project(hidden).unflatten(-1, (-1, attention.head_dim))).view(heads)
            rotated: Tensor = parts * cos + rotate_half(parts) * sin
            return rotated.flatten(3).flatten(0, 1).transpose(0, 1)[None]

        query, key = made(attention.q_proj, attention.q_norm), made(attention.k_proj, attention.k_norm)
        return query, key, attention.scaling

    def vision_spans(self, hidden: Tensor, kwargs: dict[str, Any], grids: Sequence[Grid], block: int) -> list[Span]:
        """Each image's patches, and each one's padding, which nobody reads."""
        length = hidden.shape[1]
        counts = (kwargs["position_ids"][..., 0] >= 0).sum(1).tolist()
        bounds = [edge for image, count in enumerate(counts) for edge in (image * length, image * length + count)]
        return [(start, stop) for start, stop in pairwise([*bounds, len(counts) * length]) if stop > start]

    def to_tokens(self, values: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """Average squares of patches in raster order, padding left out."""
        merge, images = self.merge, values.float().reshape(len(grids), -1, values.shape[-1])
        shapes = [(height, merge, width, merge, -1) for _, height, width in grids]
        patches = (image[: math.prod(shape[:4])].view(shape) for image, shape in zip(images, shapes, strict=True))
        return [image.mean((1, 3)).flatten(0, 1) for image in patches]

    def feature_block(self) -> int:
        """The last block."""
        return len(self.vision_blocks()) - 1

    def features(self, entering: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """Whole tokens: patches are averaged before the projector, and padding is taken off."""
        return list(entering.split([height * width for _, height, width in grids]))

    def project(self, features: Tensor) -> Tensor:
        """The projector treats tokens one by one."""
        tokens: Tensor = self.projector.forward(features)
        return tokens

    @property
    def usual_tokens(self) -> int:
        """A square image under the processor's limit of 280 tokens."""
        return 256

    def image_of(self, tokens: int) -> tuple[Size, int]:
        """The rectangle nearest to a square; sides at most 1:4 apart."""
        return rectangle(tokens), 1

    def image_areas(self, processor: Any, size: Size, images: int) -> Sequence[Area]:
        """The whole image, stretched to whole tokens."""
        check_described(processor.image_processor, "Gemma4ImageProcessor")
        return [WHOLE]

    def random_image(self, size: Size, tiles: int, generator: torch.Generator) -> dict[str, Tensor]:
        """[1, patches, pixels of a patch] and the (x, y) of every patch."""
        height, width = (self.merge * side for side in size)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        places = torch.stack((columns, rows), -1).view(1, -1, 2)
        values = 3 * self.model.config.vision_config.patch_size**2
        return {
            "pixel_values": torch.rand(1, height * width, values, generator=generator),
            "image_position_ids": places,
        }

    def id_arguments(self, ids: Tensor) -> dict[str, Tensor]:
        """A mask of image ids: in some sizes an image's tokens see each other both ways."""
        return {"mm_token_type_ids": (ids == self.model.config.image_token_id).int()}


def _padded(image: dict[str, Tensor], most: int) -> dict[str, Tensor]:
    """Lengthen an image to `most` patches."""
    rest = (0, 0, 0, most - image["pixel_values"].shape[1])
    return {
        name: nn.functional.pad(value, rest, value=-1 if name == "image_position_ids" else 0)
        for name, value in image.items()
    }
