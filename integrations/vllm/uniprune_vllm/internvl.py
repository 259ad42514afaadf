"""InternVL3 with pruned images, for checkpoints in the form of transformers (`InternVLForConditionalGeneration`)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm.model_executor.models.interns1 import (
    InternS1DummyInputsBuilder,
    InternS1ForConditionalGeneration,
    InternS1MultiModalProcessor,
    InternS1ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from uniprune_vllm.processing import QUESTION, QUESTION_IDS, OnlyImages, PrunedProcessor
from uniprune_vllm.pruned_images import PrunedImages
from uniprune_vllm.towers import InternTower


class ProcessingInfo(OnlyImages, InternS1ProcessingInfo):  # type: ignore[misc]
    """InternVL's, without videos."""


class Processor(PrunedProcessor, InternS1MultiModalProcessor):  # type: ignore[misc]
    """InternVL's, with fewer placeholders."""

    def unpruned(self, inputs: Any) -> list[int]:
        """As many tiles as the processor cuts an image of this size into."""
        given = {name: value for name, value in inputs.hf_processor_mm_kwargs.items() if name != QUESTION}
        processor, images = self.info.get_hf_processor(**given), inputs.mm_data_items["image"]
        sizes = [images.get_image_size(number) for number in range(images.get_count())]
        return [
            self.info.get_num_image_tokens(
                image_width=size.width, image_height=size.height, processor=processor, mm_kwargs=given
            )
            for size in sizes
        ]


@MULTIMODAL_REGISTRY.register_processor(Processor, info=ProcessingInfo, dummy_inputs=InternS1DummyInputsBuilder)
class UniPruneInternVL(PrunedImages, InternS1ForConditionalGeneration):  # type: ignore[misc]
    """InternVL whose images, all tiles of each together, are pruned after the projector."""

    adapter = InternTower
    num_image_token: int

    def extent(self, feature: Any) -> int:
        """All tokens of all tiles."""
        return int(feature.data["image_num_patches"].data) * self.num_image_token

    def embed_multimodal(self, **kwargs: Any) -> tuple[Tensor, ...]:
        """Return per image what is left of it."""
        questions = kwargs.pop(QUESTION_IDS, None)
        with self.spans.measure("tower"):
            images, side = super().embed_multimodal(**kwargs), round(self.num_image_token**0.5)
        grids = [[(1, side, side)] * (len(tokens) // self.num_image_token) for tokens in images]
        return self.pruned(images, grids, questions)
