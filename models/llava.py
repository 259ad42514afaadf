"""LLaVA-1.5: a CLIP tower whose patches are projected one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

from torch import nn

from uniprune.modeling.adapter import ModelAdapter, Tried
from uniprune.modeling.input_forms import SquareForms, check_processor
from uniprune.modeling.messages import RawQuestion
from uniprune.modeling.patch_grid import CLIP, PatchGridAdapter
from uniprune.modeling.random_images import Size
from uniprune.modeling.shown_areas import WHOLE, Area, check_described, padded_to_square, scaled_and_cropped, within
from uniprune.modeling.tiny import IMAGE, VISION, TinyModel
from uniprune.pruning.input_stage import Forms
from uniprune.registry import register_model

from ._prompts import option_letter
from .pixtral import Pixtral

PATCH = 14


class TinyLlava(TinyModel):
    """Four CLIP layers on a square grid of patches, each of which is a token."""

    def config(self, text: dict[str, Any]) -> Any:
        """LlavaConfig."""
        from transformers import LlavaConfig

        return LlavaConfig(
            vision_config=tiny_tower(self.size),
            text_config=self.language_model(text),
            image_token_index=IMAGE,
            image_seq_length=self.size[0] * self.size[1],
        )

    def language_model(self, text: dict[str, Any]) -> Any:
        """LlamaConfig."""
        from transformers import LlamaConfig

        return LlamaConfig(**text)


def tiny_tower(size: Size) -> Any:
    """CLIPVisionConfig of four layers for square images or tiles of `size`."""
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        **VISION,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=PATCH * size[0],
        patch_size=PATCH,
        projection_dim=32,
        vocab_size=100,
    )


@register_model("llava", tiny=TinyLlava)
class Llava(PatchGridAdapter):
    """LLaVA-1.5 (arXiv 2310.03744): CLIP ViT with CLS, token-wise MLP, 576 tokens per 336 px image."""

    tried: ClassVar[Tried] = {
        "text model": ("gemma3_text", "llama", "mistral", "qwen2"),
        "tower": ("clip_vision_model", "siglip_vision_model"),
        "feature strategy": ("default", "full"),
    }

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        if "siglip" not in model.config.vision_config.model_type:
            self.normalisation = CLIP

    @classmethod
    def of(cls, model: Any) -> ModelAdapter:
        """Pixtral's adapter for a Pixtral tower: its checkpoints have LLaVA's model type."""
        return (Pixtral if model.config.vision_config.model_type == "pixtral" else cls)(model)

    def prompt(self, asked: RawQuestion) -> Sequence[str | int] | None:
        """For questions with options, a request for the letter."""
        return option_letter(asked)

    def input_forms(self, processor: Any, images: int) -> Forms:
        """A smaller square."""
        check_processor(processor, "CLIPImageProcessor", "LlavaImageProcessor", "SiglipImageProcessor")
        own = processor.image_processor
        pixels = own.crop_size if own.do_center_crop else own.size
        return SquareForms(self._patch[0], (pixels.get("height") or pixels["shortest_edge"]) // self._patch[0])

    def image_areas(self, processor: Any, size: Size, images: int) -> Sequence[Area]:
        """The square that is cropped, or the image with padding around it, by the processor's settings."""
        own = processor.image_processor
        check_described(own, "CLIPImageProcessor", "LlavaImageProcessor", "SiglipImageProcessor")
        kind = type(own).__name__
        if kind.startswith("Siglip"):
            return [WHOLE]
        if kind.startswith("Llava") and own.do_pad:
            return [within(padded_to_square(size), scaled_and_cropped(own, (max(size), max(size))))]
        return [scaled_and_cropped(own, size)]

    def any_size(self) -> AbstractContextManager[None]:
        """The tower interpolates its positions for images of another size than its own."""
        return self._interpolating()

    @contextmanager
    def _interpolating(self) -> Iterator[None]:
        handle = self.vision.register_forward_pre_hook(_interpolate, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def whole_tower(self) -> str | None:
        """None, if the states of one block are projected."""
        several = isinstance(self.model.config.vision_feature_layer, (list, tuple))
        return "the states of several of its blocks are projected side by side" if several else None

    def merging_parts(self, block: Any) -> tuple[nn.Module, nn.Module, nn.Module] | None:
        """Patches are projected one by one, wherever they are."""
        return block.self_attn.k_proj, block.layer_norm2, block.mlp

    def vision_blocks(self) -> Sequence[nn.Module]:
        """Blocks of the CLIP (or SigLIP) encoder."""
        blocks: Sequence[nn.Module] = self.vision.encoder.layers
        return blocks

    def vision_attention(self, block: Any) -> nn.Module:
        """The block's `self_attn`."""
        attention: nn.Module = block.self_attn
        return attention


def _interpolate(tower: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Ask the tower, in a forward hook, to interpolate its positions; those of its own size stay as they are."""
    return args, {**kwargs, "interpolate_pos_encoding": True}
