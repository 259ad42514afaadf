"""Qwen3-VL: a tower of whole frames, whose features also enter the first decoder layers (deepstack)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from uniprune.modeling.adapter import TextAfter, Tried
from uniprune.modeling.image_grouping import ClipsOverRuns, Grouping
from uniprune.modeling.tiny import IMAGE_END, IMAGE_START, VIDEO
from uniprune.registry import register_model

from ._whole_frames import HALVES, WholeFrames, tiny_fields
from .qwen2_5_vl import TinyQwen2_5_VL

ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [3, 3, 2], "mrope_interleaved": True}


class TinyQwen3VL(TinyQwen2_5_VL):
    """Four blocks, three of which add their features after a decoder layer; images of any size."""

    def config(self, text: dict[str, Any]) -> Any:
        """Qwen3VLConfig."""
        from transformers import Qwen3VLConfig

        return Qwen3VLConfig(**_fields(text))

    def clip_ids(self, tokens: int) -> list[int]:
        """A time stamp before every step; any ids serve."""
        return [one for stamp in (20, 21) for one in (stamp, IMAGE_START, *[VIDEO] * tokens, IMAGE_END)]


class TinyQwen3VLMoe(TinyQwen3VL):
    """The same tower; two of four experts for every token."""

    def config(self, text: dict[str, Any]) -> Any:
        """Qwen3VLMoeConfig."""
        from transformers import Qwen3VLMoeConfig

        experts = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
        return Qwen3VLMoeConfig(**_fields({**experts, **text}))


@register_model("qwen3_vl", tiny=TinyQwen3VL)
class Qwen3VL(WholeFrames):
    """Qwen3-VL (arXiv 2511.21631): attention within whole frames, 2x2 merger, deepstack, interleaved M-RoPE.

    VLMEvalKit registers it without prompts of its own, so they are the benchmark's under either policy.
    """

    tried: ClassVar[Tried] = {"text model": ("qwen3_vl_text",), "tower": ("qwen3_vl_vision",)}
    videos: ClassVar[bool] = True
    normalisation = HALVES

    def image_grouping(self) -> Grouping:
        """Time stamps and marks stand between the frames of a video."""
        return ClipsOverRuns(self.model.config.video_token_id)

    def text_after(self) -> Mapping[int, TextAfter]:
        """After what is left of an image; frames of a video are followed by marks with ids of their own."""
        config = self.model.config
        return {config.image_token_id: "kept", config.video_token_id: "unpruned"}

    def token_parts(self) -> Sequence[nn.Module]:
        """The mergers of the blocks that feed the first decoder layers."""
        mergers: Sequence[nn.Module] = self.vision.deepstack_merger_list
        return mergers

    def part_blocks(self) -> Sequence[int]:
        """Those that feed them."""
        blocks: Sequence[int] = self.vision.deepstack_visual_indexes
        return blocks


@register_model("qwen3_vl_moe", tiny=TinyQwen3VLMoe)
class Qwen3VLMoe(Qwen3VL):
    """Qwen3-VL with a mixture of experts in every decoder layer; everything else is Qwen3-VL's."""

    tried: ClassVar[Tried] = {"text model": ("qwen3_vl_moe_text",), "tower": ("qwen3_vl_moe_vision",)}


def _fields(text: dict[str, Any]) -> dict[str, Any]:
    return tiny_fields({"rope_parameters": ROPE, **text}, deepstack_visual_indexes=[0, 1, 2])
