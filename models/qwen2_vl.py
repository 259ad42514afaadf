"""Qwen2-VL: Qwen2.5-VL's predecessor, whose tower attends to whole frames in every block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from uniprune.modeling.adapter import Tried
from uniprune.modeling.messages import RawQuestion
from uniprune.modeling.tiny import IMAGE, IMAGE_END, IMAGE_START, VIDEO
from uniprune.registry import register_model

from ._prompts import is_chinese
from ._whole_frames import WholeFrames
from .qwen2_5_vl import PATCH, TinyQwen2_5_VL

SELECT = "Please select the correct answer from the options above."
UNCHANGED = ("MMVet", "ChartQAPro", "ChartQAPro_CoT", "ChartQAPro_PoT", "ChartMuseum")
"""Datasets whose open questions are the benchmark's."""


class TinyQwen2VL(TinyQwen2_5_VL):
    """Four blocks; images of any size."""

    def config(self, text: dict[str, Any]) -> Any:
        """Qwen2VLConfig."""
        from transformers import Qwen2VLConfig

        vision = {"embed_dim": 32, "depth": 4, "num_heads": 4, "mlp_ratio": 2, "patch_size": PATCH}
        rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
        return Qwen2VLConfig(
            vision_config={**vision, "hidden_size": text["hidden_size"]},
            text_config={"rope_parameters": rope, **text},
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            vision_start_token_id=IMAGE_START,
            vision_end_token_id=IMAGE_END,
        )


@register_model("qwen2_vl", tiny=TinyQwen2VL)
class Qwen2VL(WholeFrames):
    """Qwen2-VL (arXiv 2409.12191): no windows, patches in the order of their tokens; else as Qwen2.5-VL."""

    tried: ClassVar[Tried] = {"text model": ("qwen2_vl_text",), "tower": ("qwen2_vl_vision",)}
    videos: ClassVar[bool] = True

    def prompt(self, asked: RawQuestion) -> Sequence[str | int] | None:
        """Images first; question and options under headings, answers of a letter, yes or no, or a few words."""
        match asked.kind:
            case "choice" if "LEGO" not in asked.benchmark:
                text = _choice(asked)
            case "yes-no" if asked.benchmark in ("HallusionBench", "POPE"):
                text = f"{asked.text} Please answer yes or no."
            case "open" if asked.benchmark not in UNCHANGED:
                text = f"{asked.text}\nPlease try to answer the question with short words or phrases if possible."
            case _:
                return None
        return [*range(len(asked.images)), text]


def _choice(asked: RawQuestion) -> str:
    """Word a question with options; MMMU's are in English whatever the question is in."""
    hint = "" if asked.hint is None else f"Hint: {asked.hint}\n"
    text = f"{hint}Question: {asked.text}\n"
    if asked.options:
        text += "Options:\n" + "".join(f"{name}. {option}\n" for name, option in asked.options.items())
        chinese = is_chinese(text) and asked.benchmark not in ("MMMU_DEV_VAL", "MMMU_TEST")
        text += "请直接回答选项字母。" if chinese else SELECT
    return text.rstrip()
