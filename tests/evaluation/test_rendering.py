"""Images keep their places among the text, whatever a chat template does with a message."""

from __future__ import annotations

from functools import partial

import pytest
from PIL import Image

from tests.helpers.real_processors import CHECKPOINTS, llama, processor, processor_with, template
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.processing import RequestEncoder
from uniprune.evaluation.rendering import ChatTemplate
from uniprune.modeling.messages import Part

LLAVA, NEXT, QWEN, INTERNVL = CHECKPOINTS
IMAGE = Part(image=Image.new("RGB", (80, 60), "red"))


def render(name: str, *parts: str | Part) -> str:
    return ChatTemplate(processor(name)).render([Part(text=part) if isinstance(part, str) else part for part in parts])


@pytest.mark.parametrize(
    ("name", "opening", "ending"), [(LLAVA, "USER: ", " ASSISTANT:"), (NEXT, "[INST] ", " [/INST]")]
)
def test_templates_that_move_images_get_them_inside_the_text(name: str, opening: str, ending: str) -> None:
    prompt = render(name, "In the figure", IMAGE, ", what is the relation to", IMAGE, "?\nA. x")
    assert prompt == f"{opening}In the figure <image> , what is the relation to <image> ?\nA. x{ending}"


@pytest.mark.parametrize(("name", "opening"), [(LLAVA, "USER: "), (NEXT, "[INST] ")])
def test_messages_in_the_templates_own_order_are_its_own(name: str, opening: str) -> None:
    assert render(name, IMAGE, IMAGE, "What?").startswith(f"{opening}<image>\n<image>\nWhat?")


def test_templates_that_keep_the_order_are_left_alone() -> None:
    seen, shown = "<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n"
    assert f"In {seen}, or {seen}?<|im_end|>" in render(QWEN, "In ", IMAGE, ", or ", IMAGE, "?")
    assert f"In {shown}, or {shown}?<|im_end|>" in render(INTERNVL, "In ", IMAGE, ", or ", IMAGE, "?")


def test_images_reach_the_model_at_their_places() -> None:
    parts = [Part(text="one"), IMAGE, Part(text="two"), IMAGE, Part(text="three")]
    row = RequestEncoder(processor(LLAVA)).encode(Request("0", lambda: parts, question="three"))
    text = processor(LLAVA).tokenizer.decode(row.inputs["input_ids"][0])
    between = [piece.strip() for piece in text.split("<image>") if piece.strip()]
    assert between == ["USER: one", "two", "three ASSISTANT:"]
    assert len(row.inputs["pixel_values"]) == 2


FIRST = "{{ messages[0]['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | first }}"
CLEANED = template(LLAVA).replace("content['text']", "content['text'] | replace('<image>', '')")


def test_texts_that_a_template_drops_are_joined() -> None:
    built = processor_with(LLAVA, FIRST + "!", llama())
    assert ChatTemplate(built).render([Part(text="one "), Part(text="two")]) == "one two!"


@pytest.mark.parametrize("chat_template", [FIRST, CLEANED], ids=["no image", "cleaned text"])
def test_templates_that_accept_no_placeholder_refuse_the_row(chat_template: str) -> None:
    built = processor_with(LLAVA, chat_template, llama())
    parts = [Part(text="one"), IMAGE, Part(text="two")]
    row = RequestEncoder(built).encode(Request("0", lambda: parts, question="two"))
    assert row.error is not None
    assert "the chat template moves the parts of a message from their places" in row.error


def test_templates_that_refuse_a_message_refuse_the_row() -> None:
    refusing = "{% if 'forbidden' in messages | string %}{{ raise_exception('not this') }}{% endif %}"
    encoder = RequestEncoder(processor_with(LLAVA, refusing + template(LLAVA), llama()))
    messages = ([IMAGE, Part(text=text)] for text in ("forbidden", "allowed"))
    refused, asked = (encoder.encode(Request("0", partial(list, parts), "")) for parts in messages)
    assert (refused.error, asked.error) == ("the model's processor: not this", None)
