"""LLaVA-1.5 with pruned images."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm.model_executor.models.llava import (
    LlavaDummyInputsBuilder,
    LlavaForConditionalGeneration,
    LlavaMultiModalProcessor,
    LlavaProcessingInfo,
)
from vllm.model_executor.models.utils import WeightsMapper
from vllm.multimodal import MULTIMODAL_REGISTRY

from uniprune_vllm.processing import QUESTION_IDS, PrunedProcessor
from uniprune_vllm.pruned_images import PrunedImages
from uniprune_vllm.towers import ClipTower


class Processor(PrunedProcessor, LlavaMultiModalProcessor):  # type: ignore[misc]
    """LLaVA's, with fewer placeholders."""

    def unpruned(self, inputs: Any) -> list[int]:
        """All images have the same size."""
        return [self.info.get_max_image_tokens()] * inputs.mm_data_items.get_all_counts()["image"]


@MULTIMODAL_REGISTRY.register_processor(Processor, info=LlavaProcessingInfo, dummy_inputs=LlavaDummyInputsBuilder)
class UniPruneLlava(PrunedImages, LlavaForConditionalGeneration):  # type: ignore[misc]
    """LLaVA-1.5 whose images are pruned after the projector."""

    adapter = ClipTower
    # transformers 5.20 and newer save vision_tower.embeddings, older ones vision_tower.vision_model.embeddings.
    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            "model.language_model.": "language_model.model.",
            "model.vision_tower.": "vision_tower.",
            "vision_tower.vision_model.": "vision_tower.",
            "vision_tower.": "vision_tower.vision_model.",
            "model.multi_modal_projector.": "multi_modal_projector.",
            "lm_head.": "language_model.lm_head.",
        }
    )

    @property
    def _side(self) -> int:
        """Side of the grid in tokens."""
        tower = self.config.vision_config
        side: int = tower.image_size // tower.patch_size
        return side

    def extent(self, feature: Any) -> int:
        """All tokens of the image."""
        return self._side**2

    def embed_multimodal(self, **kwargs: Any) -> tuple[Tensor, ...]:
        """Return per image what is left of it."""
        questions = kwargs.pop(QUESTION_IDS, None)
        with self.spans.measure("tower"):
            images = list(super().embed_multimodal(**kwargs))
        return self.pruned(images, [[(1, self._side, self._side)]] * len(images), questions)
