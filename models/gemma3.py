"""Gemma 3: SigLIP at 896 px, patches pooled four by four; five of six decoder layers see a window only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import Tried
from uniprune.modeling.patch_grid import PatchGridAdapter
from uniprune.modeling.random_images import Size
from uniprune.modeling.shown_areas import WHOLE, Area, check_described
from uniprune.modeling.tiny import IMAGE, IMAGE_END, IMAGE_START, VISION, TinyModel
from uniprune.pruning.view import Grid
from uniprune.registry import register_model

PATCH, POOL, WINDOW = 14, 2, 10
KINDS = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention"]


class TinyGemma3(TinyModel):
    """Four SigLIP layers, four patches to a token; windows of ten tokens, shorter than an image."""

    opening: ClassVar[tuple[int, ...]] = (IMAGE_START,)

    def config(self, text: dict[str, Any]) -> Any:
        """Gemma3Config."""
        from transformers import Gemma3Config, Gemma3TextConfig, SiglipVisionConfig

        layers = {"num_hidden_layers": 4, "num_attention_heads": 4, "vision_use_head": False}
        image = {"patch_size": PATCH, "image_size": PATCH * POOL * self.size[0]}
        decoder = {"head_dim": 16, "query_pre_attn_scalar": 20, "sliding_window": WINDOW, "layer_types": KINDS}
        rope = {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
        rope["full_attention"] = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
        return Gemma3Config(
            vision_config=SiglipVisionConfig(**VISION, **layers, **image),
            text_config=Gemma3TextConfig(**{**decoder, "rope_parameters": rope, **text}),
            mm_tokens_per_image=self.size[0] * self.size[1],
            image_token_index=IMAGE,
            boi_token_index=IMAGE_START,
            eoi_token_index=IMAGE_END,
            tie_word_embeddings=False,
        )


@register_model("gemma3", tiny=TinyGemma3)
class Gemma3(PatchGridAdapter):
    """Gemma 3 (arXiv 2503.19786): 256 tokens per 896 px square; a crop of pan and scan is an image of its own."""

    tried: ClassVar[Tried] = {
        "text model": ("gemma3_text",),
        "tower": ("siglip_vision_model",),
        "rotary positions": ("default, linear",),
    }
    block_kinds = frozenset(KINDS)
    bare_weights: ClassVar[dict[str, bool]] = {"mm_input_projection_weight": True}
    system: ClassVar[str] = "You are a helpful assistant. "

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.has_cls = False
        self.merge = self.projector.kernel_size

    def image_areas(self, processor: Any, size: Size, images: int) -> Sequence[Area]:
        """The whole image, stretched to a square.

        Raises:
            UnsupportedError: crops of pan and scan are images of their own.
        """
        own = processor.image_processor
        check_described(own, "Gemma3ImageProcessor")
        if own.do_pan_and_scan:
            raise UnsupportedError("the areas of Gemma 3's pan and scan are not described; use do_pan_and_scan: false")
        return [WHOLE]

    def whole_tower(self) -> str | None:
        """None."""
        return None

    def vision_blocks(self) -> Sequence[nn.Module]:
        """Blocks of the SigLIP encoder."""
        blocks: Sequence[nn.Module] = self.vision.encoder.layers
        return blocks

    def vision_attention(self, block: Any) -> nn.Module:
        """The block's `self_attn`."""
        attention: nn.Module = block.self_attn
        return attention

    def feature_block(self) -> int:
        """The last block."""
        return len(self.vision_blocks()) - 1

    def features(self, entering: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """The patches of a token side by side; the projector averages them."""
        (_, height, width), channels = grids[0], entering.shape[-1]
        blocks = entering.reshape(-1, height, self.merge, width, self.merge, channels)
        return list(blocks.transpose(2, 3).reshape(len(entering), height * width, -1))

    def project(self, features: Tensor) -> Tensor:
        """Mean of a token's patches, norm, product, as the projector on a whole image."""
        pooled = features.unflatten(-1, (self.merge**2, -1)).mean(1)
        tokens: Tensor = self.projector.mm_soft_emb_norm(pooled) @ self.projector.mm_input_projection_weight
        return tokens.type_as(features)

    def id_arguments(self, ids: Tensor) -> dict[str, Tensor]:
        """A mask of image ids: an image's tokens see each other both ways."""
        return {"token_type_ids": (ids == self.model.config.image_token_id).int()}
