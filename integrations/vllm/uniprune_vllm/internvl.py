"""InternVL3 with pruned images, in the checkpoints' form of transformers (`InternVLForConditionalGeneration`)."""

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

from uniprune_vllm.choosing import Chooser
from uniprune_vllm.positions import MovedPositions, with_offsets
from uniprune_vllm.processing import FewerPlaceholders, OnlyImages
from uniprune_vllm.settings import method_of


class ProcessingInfo(OnlyImages, InternS1ProcessingInfo):  # type: ignore[misc]
    """InternVL's, without videos."""


class Processor(FewerPlaceholders, InternS1MultiModalProcessor):  # type: ignore[misc]
    """InternVL's, with fewer placeholders."""


@MULTIMODAL_REGISTRY.register_processor(Processor, info=ProcessingInfo, dummy_inputs=InternS1DummyInputsBuilder)
class UniPruneInternVL(MovedPositions, InternS1ForConditionalGeneration):  # type: ignore[misc]
    """InternVL whose images, all tiles of each together, are pruned after the projector."""

    supported_video_pruning_methods = ("evs",)

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.chooser = Chooser(method_of(self.config), self.config.text_config.num_hidden_layers)
        self.placeholder = self.config.image_token_id
        self._total: int = self.num_image_token
        self._side = round(self._total**0.5)

    def extent(self, feature: Any) -> int:
        """All tokens of all tiles."""
        return int(feature.data["image_num_patches"].data) * self._total

    def embed_multimodal(self, **kwargs: object) -> list[Tensor]:
        """Return per image [k, D] the tokens that stay, with their offsets where these are carried."""
        found = []
        for tokens in super().embed_multimodal(**kwargs):
            tiles = [(1, self._side, self._side)] * (len(tokens) // self._total)
            kept = self.chooser.keep(tokens, tiles)
            moved = self.chooser.pruner.positions == "original"
            found.append(with_offsets(kept.tokens, kept.cells[:, None].expand(-1, 2)) if moved else kept.tokens)
        return found
