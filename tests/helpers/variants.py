"""Tiny models of registered families on other language models than the family's own tiny model has."""

from __future__ import annotations

from typing import Any, ClassVar

from uniprune.modeling.tiny import VOCAB, TinyModel
from uniprune.models.gemma4 import TinyGemma4
from uniprune.models.internvl import TinyInternVL


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


class TinyGemma4Moe(TinyGemma4):
    """26B-A4B: two experts of four for a token, beside a dense part."""

    decoder: ClassVar[dict[str, Any]] = {
        **TinyGemma4.decoder,
        "enable_moe_block": True,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
    }


class TinyGemma4Small(TinyGemma4):
    """E2B and E4B: inputs of each layer; the last two layers reuse keys of others; attention is causal."""

    decoder: ClassVar[dict[str, Any]] = {
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCAB,
        "num_kv_shared_layers": 2,
        "use_double_wide_mlp": True,
    }
    tower: ClassVar[dict[str, Any]] = {"use_clipped_linears": True}


VARIANTS: dict[str, type[TinyModel]] = {
    "internvl-qwen3": TinyInternVLQwen3,
    "internvl-qwen3_moe": TinyInternVLQwen3Moe,
    "gemma4-26b": TinyGemma4Moe,
    "gemma4-e2b": TinyGemma4Small,
}
