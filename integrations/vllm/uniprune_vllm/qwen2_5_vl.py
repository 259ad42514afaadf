"""Qwen2.5-VL with pruned images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from uniprune_vllm.choosing import Chooser
from uniprune_vllm.positions import MovedPositions, with_offsets
from uniprune_vllm.processing import FewerPlaceholders, OnlyImages
from uniprune_vllm.settings import method_of


class ProcessingInfo(OnlyImages, Qwen2_5_VLProcessingInfo):  # type: ignore[misc]
    """Qwen2.5-VL's, without videos."""


class Processor(FewerPlaceholders, Qwen2_5_VLMultiModalProcessor):  # type: ignore[misc]
    """Qwen2.5-VL's, with fewer placeholders."""


@MULTIMODAL_REGISTRY.register_processor(Processor, info=ProcessingInfo, dummy_inputs=Qwen2_5_VLDummyInputsBuilder)
class UniPruneQwen2_5_VL(MovedPositions, Qwen2_5_VLForConditionalGeneration):  # type: ignore[misc]
    """Qwen2.5-VL whose images are pruned after the merger."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.chooser = Chooser(method_of(self.config), self.config.text_config.num_hidden_layers)
        self.placeholder = self.config.image_token_id

    def extent(self, feature: Any) -> int:
        """The longer side of the grid; under vLLM's positions its width."""
        merge: int = self.visual.spatial_merge_size
        _, height, width = feature.data["image_grid_thw"].data.tolist()
        sides = (width,) if self.chooser.pruner.positions == "vllm" else (height, width)
        return max(map(int, sides)) // merge

    def _postprocess_image_embeds_evs(self, image_embeds_split: Any, image_input: Any) -> tuple[Tensor, ...]:
        """Return per image [k, D + 4] the tokens that stay, with their offsets."""
        merge, found = self.visual.spatial_merge_size, []
        for tokens, (t, h, w) in zip(image_embeds_split, image_input["image_grid_thw"].tolist(), strict=True):
            grid = (t, h // merge, w // merge)
            kept = self.chooser.keep(tokens, [grid])
            offsets = torch.stack((kept.cells // grid[2], kept.cells % grid[2]), dim=1)
            found.append(with_offsets(kept.tokens, offsets))
        return tuple(found)
