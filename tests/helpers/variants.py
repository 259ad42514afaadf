"""Tiny models of registered families with another language model or tower than the family's own tiny model has."""

from __future__ import annotations

from typing import Any

from uniprune.modeling.tiny import TinyModel
from uniprune.models.internvl import TinyInternVL
from uniprune.models.pixtral import TinyPixtral


class TinyInternVLQwen3(TinyInternVL):
    """InternVL3.5: norms of queries and keys."""

    def language_model(self, text: dict[str, Any]) -> Any:
        """Qwen3Config."""
        from transformers import Qwen3Config

        return Qwen3Config(**text, head_dim=16)


class TinyInternVLQwen3Moe(TinyInternVL):
    """InternVL3.5-30B-A3B: two experts of four for a token."""

    def language_model(self, text: dict[str, Any]) -> Any:
        """Qwen3MoeConfig."""
        from transformers import Qwen3MoeConfig

        return Qwen3MoeConfig(**text, head_dim=16, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2)


VARIANTS: dict[str, type[TinyModel]] = {
    "internvl-qwen3": TinyInternVLQwen3,
    "internvl-qwen3_moe": TinyInternVLQwen3Moe,
    "llava-pixtral": TinyPixtral,
}
