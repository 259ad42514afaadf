"""Qwen3.5: Qwen3-VL's tower without deepstack, and a decoder that mixes linear with full attention."""

from __future__ import annotations

from typing import Any, ClassVar

from uniprune.modeling.adapter import Tried
from uniprune.modeling.image_grouping import ClipsOverRuns, Grouping
from uniprune.registry import register_model

from ._whole_frames import HALVES, WholeFrames, tiny_fields
from .qwen2_5_vl import TinyQwen2_5_VL

ROPE = {
    "rope_type": "default",
    "rope_theta": 1e4,
    "partial_rotary_factor": 0.5,
    "mrope_section": [2, 1, 1],
    "mrope_interleaved": True,
}
KINDS = ["linear_attention", "full_attention", "linear_attention", "full_attention", "linear_attention"]


class TinyQwen3_5(TinyQwen2_5_VL):
    """Full attention in the second and fourth layer of five; images of any size."""

    def config(self, text: dict[str, Any]) -> Any:
        """Qwen3_5Config."""
        from transformers import Qwen3_5Config

        return Qwen3_5Config(**_fields(text))


class TinyQwen3_5Moe(TinyQwen3_5):
    """Beside a shared expert, two of four for every token."""

    def config(self, text: dict[str, Any]) -> Any:
        """Qwen3_5MoeConfig."""
        from transformers import Qwen3_5MoeConfig

        experts = {"num_experts": 4, "num_experts_per_tok": 2}
        sizes = {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
        return Qwen3_5MoeConfig(**_fields({**experts, **sizes, **text}))


@register_model("qwen3_5", tiny=TinyQwen3_5)
class Qwen3_5(WholeFrames):
    """Qwen3.5: whole frames, 2x2 merger, interleaved M-RoPE; three of four decoder layers are gated delta nets.

    VLMEvalKit runs it over an API only, so prompts are the benchmark's under either policy.
    """

    tried: ClassVar[Tried] = {"text model": ("qwen3_5_text",), "tower": ("qwen3_5_vision",)}
    normalisation = HALVES

    def image_grouping(self) -> Grouping:
        """Time stamps and marks stand between the frames of a video."""
        return ClipsOverRuns(self.model.config.video_token_id)


@register_model("qwen3_5_moe", tiny=TinyQwen3_5Moe)
class Qwen3_5Moe(Qwen3_5):
    """Qwen3.5 with a mixture of experts in every decoder layer; everything else is Qwen3.5's."""

    tried: ClassVar[Tried] = {"text model": ("qwen3_5_moe_text",), "tower": ("qwen3_5_moe_vision",)}


def _fields(text: dict[str, Any]) -> dict[str, Any]:
    linear = {
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    }
    return tiny_fields({"rope_parameters": ROPE, "layer_types": KINDS, **linear, **text})
