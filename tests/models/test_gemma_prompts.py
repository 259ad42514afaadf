"""Prompts and images of Gemma 3 and Gemma 4 as their processors make them, up to the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Gemma4AudioConfig,
    Gemma4AudioFeatureExtractor,
    Gemma4ImageProcessorPil,
    Gemma4Processor,
    Gemma4VideoProcessor,
    PreTrainedTokenizerFast,
)

from tests.helpers.real_processors import llama
from tests.helpers.tiny import small
from uniprune.engine import prune
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.processing import RequestEncoder, visual_inputs
from uniprune.evaluation.prompts import worded
from uniprune.evaluation.rendering import ChatTemplate
from uniprune.methods.random_pre import RandomPre
from uniprune.modeling.loading import place
from uniprune.modeling.messages import Part
from uniprune.modeling.tiny import TEXT
from uniprune.models.gemma3 import Gemma3

pytestmark = pytest.mark.end_to_end

SIDE, TOKENS = 112, 16
MARKS = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
    "boa_token": "<start_of_audio>",
    "eoa_token": "<end_of_audio>",
    "audio_token": "<audio_soft_token>",
}
TURN = "<start_of_turn>{}\n{}<end_of_turn>\n"
TEMPLATE = """{{ bos_token }}{% set system = '' %}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content[0].text + '\n\n' %}{% endif %}
{%- for message in messages if message.role != 'system' -%}
<start_of_turn>{{ message.role }}
{{ system }}{% for part in message.content %}{{ IMAGE if part.type == 'image' else part.text | trim }}{% endfor -%}
<end_of_turn>
{% endfor %}<start_of_turn>model
"""
"""Template by the rules of the published ones: a system message opens the user's turn, texts are trimmed."""
IMAGE = Part(image=Image.new("RGB", (300, 100), "red"))


def tokenizer() -> PreTrainedTokenizerFast:
    core = llama().backend_tokenizer
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", extra_special_tokens=MARKS
    )


def gemma3(**images: Any) -> Any:
    made = Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE})
    template = TEMPLATE.replace("IMAGE", "'<start_of_image>'")
    processor = Gemma3Processor(made, tokenizer(), chat_template=template, image_seq_length=TOKENS)
    processor.images_kwargs = processor.images_kwargs | images
    return processor


def gemma4() -> Any:
    made = Gemma4ImageProcessorPil(max_soft_tokens=70, patch_size=4)
    template = TEMPLATE.replace("IMAGE", "'<image_soft_token>'")
    return Gemma4Processor(
        Gemma4AudioFeatureExtractor(), made, tokenizer(), Gemma4VideoProcessor(), chat_template=template
    )


def model_for(family: str, processor: Any) -> Any:
    """Build a tiny model with the tokenizer's ids."""
    config = small(family).config(TEXT | {"vocab_size": len(processor.tokenizer)})
    config.image_token_id = processor.tokenizer.image_token_id
    config.video_token_id = None
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(config).eval()


def encoded(processor: Any, parts: list[Part], system: str | None = None) -> Any:
    request = Request("0", lambda: parts, question="What is it?")
    row = RequestEncoder(processor).encode(worded(request, lambda row: None, system))
    assert row.error is None
    return row


@pytest.mark.parametrize("system", [None, Gemma3.system])
def test_the_system_message_opens_the_users_turn(system: str | None) -> None:
    parts = [] if system is None else [Part(text=system, system=True)]
    prompt = ChatTemplate(gemma3()).render([*parts, IMAGE, Part(text="What is it?"), IMAGE, Part(text="And it?")])
    before = "" if system is None else f"{system}\n\n"
    words = f"{before}<start_of_image>What is it?<start_of_image>And it?"
    assert prompt.strip() == "<s>" + TURN.format("user", words) + "<start_of_turn>model"


@pytest.mark.parametrize("system", [None, Gemma3.system])
def test_rows_reach_gemma3(system: str | None) -> None:
    """One mark in the prompt becomes the image's tokens, marked as such; the question is found after them."""
    processor = gemma3()
    row = encoded(processor, [IMAGE, Part(text="What is it?")], system)
    ids, image = row.inputs["input_ids"][0], processor.tokenizer.image_token_id
    assert (ids == image).sum() == TOKENS == row.inputs["token_type_ids"].sum()
    assert set(row.inputs) == {"input_ids", "attention_mask", "token_type_ids", "pixel_values"}
    assert row.remarks == () and processor.tokenizer.decode(ids[row.asked]).strip() == "What is it?"
    model = model_for("gemma3", processor)
    with prune(model, RandomPre(ratio=0.5)) as session, torch.no_grad():
        model(**{name: torch.from_numpy(value) for name, value in row.inputs.items()})
    assert [len(kept) for kept in session.reports[0].rows[0].stages[0].kept] == [TOKENS // 2]


def test_crops_of_pan_and_scan_are_images_of_their_own() -> None:
    processor = gemma3(do_pan_and_scan=True, pan_and_scan_min_crop_size=32)
    row = encoded(processor, [IMAGE, Part(text="What is it?")])
    crops = len(row.inputs["pixel_values"]) - 1
    assert crops == 3
    model = model_for("gemma3", processor)
    with prune(model, RandomPre(ratio=0.5)) as session, torch.no_grad():
        model(**{name: torch.from_numpy(value) for name, value in row.inputs.items()})
    [report] = session.reports[0].rows
    assert report.grids == (((1, 4, 4),),) * (1 + crops)
    assert [len(kept) for kept in report.stages[0].kept] == [TOKENS // 2] * (1 + crops)


def test_rows_reach_gemma4() -> None:
    """An image keeps its proportions; its patches are padded to the most there can be."""
    processor = gemma4()
    row = encoded(processor, [Part(text="Look:"), IMAGE, Part(text="What is it?"), IMAGE])
    ids, image = row.inputs["input_ids"][0], processor.tokenizer.image_token_id
    assert row.inputs["image_position_ids"].shape == (2, 70 * 9, 2)
    model = model_for("gemma4", processor)
    with prune(model, RandomPre(ratio=0.5)) as session, torch.no_grad():
        model(**{name: torch.from_numpy(value) for name, value in row.inputs.items()})
    [report] = session.reports[0].rows
    assert report.grids == (((1, 4, 14),),) * 2
    assert (ids == image).sum() == report.initial == 2 * 56


def test_pixels_are_no_sequence_whatever_their_number() -> None:
    """Padded patches of one image have two dimensions like a sequence, and may be as many as the prompt's tokens."""
    row = {"input_ids": torch.zeros(1, 4), "image_position_ids": torch.zeros(1, 4, 2)}
    assert list(visual_inputs({name: value.numpy() for name, value in row.items()})) == ["image_position_ids"]


def test_models_with_an_audio_tower_load_with_any_kernel() -> None:
    """E2B and E4B have one, which knows eager attention only."""
    config = small("gemma4-e2b").config(TEXT)
    config.audio_config = Gemma4AudioConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        output_proj_dims=32,
        subsampling_conv_channels=[8, 4],
    )
    kernels = place("float32", "sdpa", "cpu").kernels
    model = AutoModelForImageTextToText.from_config(config, attn_implementation=kernels)
    parts = (model.config, model.config.text_config, model.config.vision_config)
    assert {part._attn_implementation for part in parts} == {"sdpa"}
