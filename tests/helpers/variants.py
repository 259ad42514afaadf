"""Tiny models of registered families with another language model, tower or rotary positions than the family's own."""

from __future__ import annotations

from typing import Any

from uniprune.modeling.tiny import IMAGE, VISION, TinyModel
from uniprune.models.internvl import TinyInternVL
from uniprune.models.llava import PATCH, TinyLlava
from uniprune.models.llava_next import TinyLlavaNext
from uniprune.models.pixtral import TinyPixtral

WINDOW = 10
"""Positions that a windowed layer sees: fewer than a tiny prompt has."""


class TinyInternVLQwen3(TinyInternVL):
    """InternVL3.5: norms of queries and keys; with the rotary positions of InternVL3, scaled beyond their length."""

    def language_model(self, text: dict[str, Any]) -> Any:
        """Qwen3Config."""
        from transformers import Qwen3Config

        rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
        return Qwen3Config(**{"rope_parameters": rope, **text}, head_dim=16)


class TinyInternVLQwen3Moe(TinyInternVL):
    """InternVL3.5-30B-A3B: two experts of four for a token."""

    def language_model(self, text: dict[str, Any]) -> Any:
        """Qwen3MoeConfig."""
        from transformers import Qwen3MoeConfig

        return Qwen3MoeConfig(**text, head_dim=16, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2)


class TinyLlavaSiglipQwen2(TinyLlava):
    """LLaVA-Interleave: a SigLIP tower, which has no CLS token, and Qwen2."""

    def config(self, text: dict[str, Any]) -> Any:
        """LlavaConfig."""
        from transformers import LlavaConfig, Qwen2Config, SiglipVisionConfig

        height, width = self.size
        tower = SiglipVisionConfig(
            **VISION,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=PATCH * height,
            patch_size=PATCH,
            vision_use_head=False,
        )
        return LlavaConfig(
            vision_config=tower,
            text_config=Qwen2Config(**text),
            image_token_index=IMAGE,
            image_seq_length=height * width,
            vision_feature_select_strategy="full",
            vision_feature_layer=-1,
        )


class TinyLlavaNextMistral(TinyLlavaNext):
    """LLaVA-NeXT on Mistral 0.2, without a window."""

    def config(self, text: dict[str, Any]) -> Any:
        """LlavaNextConfig."""
        from transformers import MistralConfig

        config = super().config(text)
        config.text_config = MistralConfig(**{"sliding_window": None, **text})
        return config


class TinyLlavaMistral(TinyLlava):
    """LLaVA on Mistral: a window of ten tokens in every layer, of which its configuration has no list."""

    def language_model(self, text: dict[str, Any]) -> Any:
        """MistralConfig."""
        from transformers import MistralConfig

        return MistralConfig(**{"sliding_window": WINDOW, **text})


class TinyLlavaGemma(TinyLlava):
    """LLaVA on the text model of Gemma 3: two of three layers have a window, and a rotary table of their own."""

    def language_model(self, text: dict[str, Any]) -> Any:
        """Gemma3TextConfig."""
        from transformers import Gemma3TextConfig

        kinds = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention"]
        return Gemma3TextConfig(**text, head_dim=16, query_pre_attn_scalar=16, sliding_window=WINDOW, layer_types=kinds)


class TinyInternVLGptOss(TinyInternVL):
    """InternVL3.5-GPT-OSS: every second layer has a window; sinks in every softmax; two experts of four."""

    def language_model(self, text: dict[str, Any]) -> Any:
        """GptOssConfig."""
        from transformers import GptOssConfig

        experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
        rope = {"rope_type": "default", "rope_theta": 1e4}
        return GptOssConfig(**text, **experts, head_dim=16, sliding_window=WINDOW, rope_parameters=rope)


VARIANTS: dict[str, type[TinyModel]] = {
    "internvl-qwen3": TinyInternVLQwen3,
    "internvl-qwen3_moe": TinyInternVLQwen3Moe,
    "llava-siglip-qwen2": TinyLlavaSiglipQwen2,
    "llava_next-mistral": TinyLlavaNextMistral,
    "internvl-gpt_oss": TinyInternVLGptOss,
    "llava-gemma3_text": TinyLlavaGemma,
    "llava-mistral": TinyLlavaMistral,
    "llava-pixtral": TinyPixtral,
}
