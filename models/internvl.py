"""InternVL: 448 px tiles, each a ViT run whose patches are merged two by two."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from torch import nn

from uniprune.modeling.adapter import Tried
from uniprune.modeling.image_grouping import Grouping, tiles_in_a_run
from uniprune.modeling.input_forms import TileForms, check_processor
from uniprune.modeling.messages import RawQuestion
from uniprune.modeling.patch_grid import IMAGENET, PatchGridAdapter
from uniprune.modeling.random_images import Size
from uniprune.modeling.shown_areas import WHOLE, Area, check_described, cut
from uniprune.modeling.tiny import IMAGE, VISION, TinyModel
from uniprune.pruning.input_stage import Forms
from uniprune.registry import register_model

from ._prompts import SHORT, letter

PATCH, MERGE = 14, 2

YES_NO = {"MME": f" {SHORT}", "HallusionBench": f" Please answer yes or no. {SHORT}"}
"""Dataset -> ending that VLMEvalKit's wrapper adds to its questions; none for other yes/no datasets."""
UNCHANGED = ("MathVista", "MathVision", "MIA-Bench", "MMVet")
"""Datasets whose open questions get no ending."""
DETAIL = "Answer this question in detail."
"""Ending of LLaVA-Bench's."""


class TinyInternVL(TinyModel):
    """Four InternViT layers; four patches to a token."""

    def config(self, text: dict[str, Any]) -> Any:
        """InternVLConfig."""
        from transformers import InternVLConfig

        vision = {
            **VISION,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": [PATCH * MERGE * side for side in self.size],
            "patch_size": [PATCH, PATCH],
            "use_qk_norm": True,
            "attention_bias": True,
        }
        return InternVLConfig(
            vision_config=vision,
            text_config=self.language_model(text),
            image_token_id=IMAGE,
            image_seq_length=self.size[0] * self.size[1],
            tie_word_embeddings=False,
        )

    def language_model(self, text: dict[str, Any]) -> Any:
        """Qwen2Config, that of InternVL3."""
        from transformers import Qwen2Config

        return Qwen2Config(**text)


@register_model("internvl", tiny=TinyInternVL)
class InternVL(PatchGridAdapter):
    """InternVL3 and 3.5 (arXiv 2504.10479, 2508.18265): ViT with CLS, 2x2 pixel shuffle, 256 tokens a tile.

    An image is several tiles. Both have the same tower and processor; 3.5 has Qwen3 or Qwen3-MoE as language model.
    """

    overview: ClassVar[int | None] = -1
    tried: ClassVar[Tried] = {
        "text model": ("gpt_oss", "qwen2", "qwen3", "qwen3_moe"),
        "tower": ("internvl_vision",),
        "rotary positions": ("default", "dynamic"),
    }

    normalisation = IMAGENET

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.merge = round(1 / model.config.downsample_ratio)

    def prompt(self, asked: RawQuestion) -> Sequence[str | int] | None:
        """Options as LLaVA, short answers except where reasoning helps; several images are numbered."""
        match asked.kind:
            case "own":
                return None
            case "choice":
                text = letter(asked)
            case "yes-no":
                text = asked.text + next((end for name, end in YES_NO.items() if name in asked.benchmark), "")
            case "open":
                ending = DETAIL if asked.benchmark == "LLaVABench" else SHORT
                text = asked.text if any(name in asked.benchmark for name in UNCHANGED) else f"{asked.text}\n{ending}"
        count = len(asked.images)
        numbered = [piece for i in range(count) for piece in (f"Image-{i + 1}: ", i)]
        return [0, text] if count == 1 else [*numbered, text]

    def input_forms(self, processor: Any, images: int) -> Forms:
        """Fewer tiles, or one of a smaller square, for which the tower interpolates its positions."""
        check_processor(processor, "GotOcr2ImageProcessor")
        own, side = processor.image_processor, self._size_of(self._pixels)[0]
        return TileForms(partial(tiles_of, own), own.max_patches, self._pixels[0] // side, side)

    def image_areas(self, processor: Any, size: Size, images: int) -> Sequence[Area]:
        """Tiles of the image stretched to the canvas of the nearest proportions, and the thumbnail."""
        from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

        own = processor.image_processor
        check_described(own, "GotOcr2ImageProcessor")
        side, most = (own.size["height"], own.size["width"]), own.max_patches
        columns, rows = get_optimal_tiled_canvas(size, side, min(most, own.min_patches), most)
        return [WHOLE] if rows == columns == 1 else [*cut(WHOLE, rows, columns), WHOLE]

    def whole_tower(self) -> str | None:
        """None."""
        return None

    def vision_blocks(self) -> Sequence[nn.Module]:
        """Blocks of the InternViT encoder."""
        blocks: Sequence[nn.Module] = self.vision.encoder.layer
        return blocks

    def vision_attention(self, block: Any) -> nn.Module:
        """The block's `attention`."""
        attention: nn.Module = block.attention
        return attention

    def image_grouping(self) -> Grouping:
        """The tiles of an image follow each other in one run."""
        return tiles_in_a_run


def tiles_of(image_processor: Any, size: tuple[int, int], most: int) -> int:
    """Return the tiles of an image of `size` pixels, thumbnail included; InternVL's processor always cuts images up."""
    least = min(most, image_processor.min_patches)
    limits = {"crop_to_patches": True, "max_patches": most, "min_patches": least}
    return int(image_processor.get_number_of_image_patches(*size, limits))
