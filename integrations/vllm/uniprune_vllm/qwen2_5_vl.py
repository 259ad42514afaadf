"""Qwen2.5-VL with pruned images."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from uniprune_vllm.processing import QUESTION_IDS, OnlyImages, PrunedProcessor
from uniprune_vllm.pruned_images import PrunedImages
from uniprune_vllm.towers import QwenTower


class ProcessingInfo(OnlyImages, Qwen2_5_VLProcessingInfo):  # type: ignore[misc]
    """Qwen2.5-VL's, without videos."""


class Processor(PrunedProcessor, Qwen2_5_VLMultiModalProcessor):  # type: ignore[misc]
    """Qwen2.5-VL's, with fewer placeholders."""


@MULTIMODAL_REGISTRY.register_processor(Processor, info=ProcessingInfo, dummy_inputs=Qwen2_5_VLDummyInputsBuilder)
class UniPruneQwen2_5_VL(PrunedImages, Qwen2_5_VLForConditionalGeneration):  # type: ignore[misc]
    """Qwen2.5-VL whose images are pruned after the merger."""

    adapter = QwenTower

    def extent(self, feature: Any) -> int:
        """The longer side of the grid; under vLLM's positions its width."""
        merge: int = self.visual.spatial_merge_size
        _, height, width = map(int, feature.data["image_grid_thw"].data)
        return (width if self.chooser.pruner.positions == "vllm" else max(height, width)) // merge

    def embed_multimodal(self, **kwargs: Any) -> tuple[Tensor, ...]:
        """Return per image what is left of it."""
        merge, questions = self.visual.spatial_merge_size, kwargs.pop(QUESTION_IDS, None)
        image_input = self._parse_and_validate_image_input(**kwargs)
        if image_input is None:
            return ()
        grids = [[(t, h // merge, w // merge)] for t, h, w in image_input["image_grid_thw"].tolist()]
        with self.spans.measure("tower"):
            images = self._process_image_input(image_input)
        return self.pruned(images, grids, questions)
