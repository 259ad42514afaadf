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

from uniprune_vllm.choosing import Chooser
from uniprune_vllm.positions import MovedPositions, with_offsets
from uniprune_vllm.processing import FewerPlaceholders
from uniprune_vllm.settings import method_of


class Processor(FewerPlaceholders, LlavaMultiModalProcessor):  # type: ignore[misc]
    """LLaVA's, with fewer placeholders."""


@MULTIMODAL_REGISTRY.register_processor(Processor, info=LlavaProcessingInfo, dummy_inputs=LlavaDummyInputsBuilder)
class UniPruneLlava(MovedPositions, LlavaForConditionalGeneration):  # type: ignore[misc]
    """LLaVA-1.5 whose images are pruned after the projector."""

    supported_video_pruning_methods = ("evs",)
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

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.chooser = Chooser(method_of(self.config), self.config.text_config.num_hidden_layers)
        self.placeholder = self.config.image_token_index
        tower = self.config.vision_config
        self._side: int = tower.image_size // tower.patch_size

    def extent(self, feature: Any) -> int:
        """All tokens of the image."""
        return self._side**2

    def embed_multimodal(self, **kwargs: object) -> list[Tensor]:
        """Return per image [k, D] the tokens that stay, with their offsets where these are carried."""
        found = []
        for tokens in super().embed_multimodal(**kwargs):
            kept = self.chooser.keep(tokens, [(1, self._side, self._side)])
            moved = self.chooser.pruner.positions == "original"
            found.append(with_offsets(kept.tokens, kept.cells[:, None].expand(-1, 2)) if moved else kept.tokens)
        return found
