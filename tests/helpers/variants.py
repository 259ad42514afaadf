"""Tiny models of registered families with another language model, tower or rotary positions than the family's own."""

from __future__ import annotations

from typing import Any, ClassVar

from uniprune.modeling.tiny import IMAGE, VISION, VOCAB, TinyModel
from uniprune.models.gemma3 import KINDS
from uniprune.models.gemma4 import TinyGemma4
from uniprune.models.internvl import TinyInternVL
from uniprune.models.llava import PATCH, TinyLlava
from uniprune.models.llava_next import TinyLlavaNext
from uniprune.models.mistral3 import TinyMistral3
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
    """E2B and E4B: inputs of each layer; the last two of eight layers reuse keys; causal attention."""

    decoder: ClassVar[dict[str, Any]] = {
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCAB,
        "use_double_wide_mlp": True,
        "num_hidden_layers": 8,
        "num_kv_shared_layers": 2,
        "layer_types": [*KINDS[:4], "sliding_attention", "full_attention", *KINDS[3:]],
    }
    tower: ClassVar[dict[str, Any]] = {"use_clipped_linears": True}


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


class TinyLlavaMinistral(TinyLlava):
    """LLaVA on Ministral 3: queries are scaled by their position, by steps of eight tokens."""

    def language_model(self, text: dict[str, Any]) -> Any:
        """Ministral3Config."""
        from transformers import Ministral3Config

        scale = {"llama_4_scaling_beta": 0.9, "original_max_position_embeddings": 8}
        rope = {"rope_type": "default", "rope_theta": 1e4, **scale}
        return Ministral3Config(**text, head_dim=16, rope_parameters=rope)


class TinyInternVLGptOss(TinyInternVL):
    """InternVL3.5-GPT-OSS: every second layer has a window; sinks in every softmax; two experts of four."""

    def language_model(self, text: dict[str, Any]) -> Any:
        """GptOssConfig."""
        from transformers import GptOssConfig

        experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
        rope = {"rope_type": "default", "rope_theta": 1e4}
        return GptOssConfig(**text, **experts, head_dim=16, sliding_window=WINDOW, rope_parameters=rope)


class TinyMinistral3(TinyMistral3):
    """Ministral 3: queries are scaled by their position, more from position 8 on; the tables are stretched."""

    def language_model(self, text: dict[str, Any]) -> Any:
        """Ministral3Config."""
        from transformers import Ministral3Config

        rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8}
        rope |= {"beta_fast": 32.0, "beta_slow": 1.0, "llama_4_scaling_beta": 0.5}
        return Ministral3Config(**text, head_dim=16, rope_parameters=rope, sliding_window=None)


VARIANTS: dict[str, type[TinyModel]] = {
    "internvl-qwen3": TinyInternVLQwen3,
    "internvl-qwen3_moe": TinyInternVLQwen3Moe,
    "gemma4-26b": TinyGemma4Moe,
    "gemma4-e2b": TinyGemma4Small,
    "llava-siglip-qwen2": TinyLlavaSiglipQwen2,
    "llava_next-mistral": TinyLlavaNextMistral,
    "internvl-gpt_oss": TinyInternVLGptOss,
    "llava-gemma3_text": TinyLlavaGemma,
    "llava-ministral3": TinyLlavaMinistral,
    "llava-mistral": TinyLlavaMistral,
    "llava-pixtral": TinyPixtral,
    "mistral3-ministral3": TinyMinistral3,
}
