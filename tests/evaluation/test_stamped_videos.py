"""Videos between whose frames a processor writes time stamps: from the processor through the model to one clip."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from tokenizers import AddedToken
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast

from tests.evaluation.test_video_rows import ask, clip, request
from tests.helpers.real_processors import qwen
from uniprune.engine import prune
from uniprune.evaluation.frame_sampling import FrameSampling
from uniprune.evaluation.processing import RequestEncoder, collate
from uniprune.methods.visionzip import VisionZip
from uniprune.modeling.messages import Part
from uniprune.modeling.tiny import TEXT, spread, tiny_model
from uniprune.registry import MODELS

pytestmark = pytest.mark.end_to_end

KINDS = ("image", "video")
MARKS = {
    "qwen3_vl": tuple(f"<|{name}|>" for kind in KINDS for name in ("vision_start", f"{kind}_pad", "vision_end")),
    "glm4v": tuple(f"<|{mark}{kind}|>" for kind in KINDS for mark in ("begin_of_", "", "end_of_")),
}
"""Start, placeholder and end of an image, and of a video."""


def template(marks: tuple[str, ...]) -> str:
    image, video = "".join(marks[:3]), "".join(marks[3:])
    return (
        "{% for message in messages %}{% for part in message.content %}"
        f"{{% if part.type == 'image' %}}{image}{{% elif part.type == 'video' %}}{video}"
        "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
    )


def processor(family: str) -> Any:
    """The family's processor, on Qwen's tokenizer with the family's marks."""
    marks = MARKS[family]
    core = qwen().backend_tokenizer
    core.add_special_tokens([AddedToken(mark, normalized=False) for mark in marks])
    names = {"image_token": marks[1], "video_token": marks[4]}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=names
    )
    patch = {"qwen3_vl": 16, "glm4v": 14}[family]
    limits = {"size": {"shortest_edge": 64 * 64, "longest_edge": 8 * 64 * 64}, "patch_size": patch}
    name = {"qwen3_vl": "Qwen3VL", "glm4v": "Glm4v"}[family]
    images = transformers.Qwen2VLImageProcessorPil(**limits)
    videos = getattr(transformers, f"{name}VideoProcessor")(**limits)
    return getattr(transformers, f"{name}Processor")(images, tokenizer, videos, chat_template=template(marks))


def model(family: str, tokenizer: Any) -> Any:
    """The family's tiny model with this vocabulary."""
    config = tiny_model(family).config({**TEXT, "vocab_size": len(tokenizer)})
    image_start, image, image_end, video_start, video, video_end = map(tokenizer.convert_tokens_to_ids, MARKS[family])
    config.image_token_id, config.video_token_id = image, video
    if family == "glm4v":
        config.image_start_token_id, config.image_end_token_id = image_start, image_end
        config.video_start_token_id, config.video_end_token_id = video_start, video_end
    else:
        config.vision_start_token_id, config.vision_end_token_id = image_start, image_end
    made = AutoModelForImageTextToText.from_config(config).eval()
    spread(made, seed=1)
    return made


@pytest.mark.parametrize("family", MARKS)
def test_a_clip_is_one_image_from_processor_to_report(family: str) -> None:
    built = processor(family)
    assert MODELS.get(family).videos
    encoder = RequestEncoder(built, sampling=FrameSampling(6))
    two = request("1", clip(12), Part("then"), clip(20, fps=2.0), Part("How many?"), videos=2)
    rows = [encoder.encode(ask("0", clip(12))), encoder.encode(two)]
    assert [row.error for row in rows] == [None, None]
    batch = collate(rows, built.tokenizer.pad_token_id)
    grids = [(t, h // 2, w // 2) for t, h, w in batch["video_grid_thw"].tolist()]
    assert len(grids) == 3 and all(t == 3 for t, _, _ in grids)
    network = model(family, built.tokenizer)
    with prune(network, VisionZip(ratio=0.5)) as session, torch.no_grad():
        session.samples = tuple(row.info for row in rows)
        network(**batch)
    clips = [((1, h, w),) * t if family == "glm4v" else ((t, h, w),) for t, h, w in grids]
    assert [[group.grids for group in row.groups] for row in session.reports[0].rows] == [clips[:1], clips[1:]]
    for row in session.reports[0].rows:
        assert row.entering[0] == sum(round(len(group.ranks) / 2) for group in row.groups)


@pytest.mark.parametrize("family", MARKS)
def test_time_stamps_are_those_of_the_frames(family: str) -> None:
    built = processor(family)
    row = RequestEncoder(built, sampling=FrameSampling(6)).encode(ask("0", clip(56, fps=4.0)))
    text = built.tokenizer.decode(row.inputs["input_ids"][0])
    stamps = (
        ["<3.0 seconds>", "<7.0 seconds>", "<11.0 seconds>"]
        if family == "qwen3_vl"
        else [f"<|end_of_image|>{second}<" for second in (2, 6, 10)]
    )
    assert [text.count(stamp) >= 1 for stamp in stamps] == [True] * 3
