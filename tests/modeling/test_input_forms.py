"""Forms of images: the tokens that they promise are those that processors make, and the largest that fit."""

from __future__ import annotations

from itertools import product
from math import isqrt
from typing import Any

import pytest
from PIL import Image

from tests.helpers.image_processors import photo, real_processor
from tests.helpers.tiny import build
from uniprune.errors import UnsupportedError
from uniprune.evaluation.resizing import resized
from uniprune.methods import Resize
from uniprune.modeling.families import find_adapter
from uniprune.modeling.image_settings import with_settings
from uniprune.modeling.input_forms import CutForms, GridForms, SquareForms, TileForms
from uniprune.models.internvl import tiles_of
from uniprune.pruning.input_stage import Forms

SIZES = [(480, 640), (333, 1000), (60, 40)]
"""Height and width."""
PAPER = {"size": {"shortest_edge": 200704, "longest_edge": 1003520}}
"""Limits under which small images are enlarged."""


def placeholders(processor: Any, images: list[Image.Image]) -> int:
    """Placeholders that a processor writes for images."""
    token = next(
        getattr(processor, name) for name in ("image_token", "context_image_token") if hasattr(processor, name)
    )
    message = [{"role": "user", "content": [{"type": "image"}] * len(images)}]
    prompt = processor.apply_chat_template(message, tokenize=False)
    ids = processor(text=prompt, images=[images])["input_ids"][0]
    return list(ids).count(processor.tokenizer.convert_tokens_to_ids(token))


def forms_of(name: str, processor: Any) -> Forms:
    match name.split("-")[0].rstrip("0123456789."):
        case "llava":
            return SquareForms(14, 24)
        case "internvl":
            own = processor.image_processor
            return TileForms(lambda size, most: tiles_of(own, size, most), own.max_patches, 28, 16)
    return GridForms.of(processor)


CASES = [
    ("qwen2.5-vl-7b", {}),
    ("qwen2.5-vl-7b", PAPER),
    ("qwen2-vl-7b", {}),
    ("qwen3-vl-8b", {}),
    ("internvl3-8b", {}),
    ("internvl3-8b", {"max_patches": 6}),
    ("llava-1.5-7b", {}),
    ("llava-1.5-7b", {"image_processor_type": "LlavaImageProcessor", "do_pad": True}),
]


@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
@pytest.mark.parametrize("ratio", [1.0, 0.333, 0.111, 0.02])
def test_processors_make_the_tokens_that_forms_promise(name: str, settings: dict[str, Any], ratio: float) -> None:
    processor = with_settings(real_processor(name), settings)
    for size in SIZES:
        image, forms = photo(size[1], size[0]), forms_of(name, processor)
        found = resized(Resize(ratio=ratio), [image], processor, forms)
        assert found.initial == placeholders(processor, [image])
        tokens = placeholders(found.processor, found.images)
        assert tokens <= found.budget
        assert tokens > found.budget - 2 * isqrt(found.budget) - 1 or name.startswith("internvl"), "nearest below"
        if ratio == 1:
            assert (found.images, found.processor) == ([image], processor)


def test_tiles_are_as_many_as_fit() -> None:
    processor = real_processor("internvl3-8b")
    forms = forms_of("internvl3-8b", processor)
    for size, keep in product(SIZES, [1, 50, 255, 256, 700, 1280, 3328]):
        [form] = forms.within(size, keep)
        possible = {tiles_of(processor.image_processor, size, most) * 256 for most in range(1, 13)}
        below = {side**2 for side in range(1, 16)}
        assert form.tokens == max(count for count in possible | below if count <= keep and (keep < 256 or count > 255))


def test_several_images_share_the_limits_of_the_smallest() -> None:
    processor = real_processor("internvl3-8b")
    images = [photo(900, 900), photo(448, 448)]
    found = resized(Resize(ratio=0.5), images, processor, forms_of("internvl3-8b", processor))
    assert placeholders(found.processor, found.images) <= found.budget
    assert found.processor.image_seq_length < 256 == processor.image_seq_length, "the processor itself is unchanged"


def test_smaller_versions_are_tried_from_the_largest_on() -> None:
    forms = CutForms(lambda size: 100 if max(size) > 50 else 40 if max(size) > 20 else 30)
    assert forms.full((64, 32)) == 100
    assert forms.within((64, 32), 100)[0].pixels is None
    assert (forms.within((64, 32), 60)[0].tokens, forms.within((64, 32), 60)[0].pixels) == (40, (50, 25))
    assert forms.within((64, 32), 10)[0].tokens == 30, "the smallest, where none fits"


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"])
def test_cut_families_have_fewer_tiles_for_smaller_images(family: str) -> None:
    adapter = find_adapter(build(family))
    kind = "LlavaNextImageProcessor" if family == "llava_next" else "LlavaOnevisionImageProcessor"
    forms = adapter.input_forms(processor_of(kind), 1)
    whole = forms.full((200, 200))
    [form] = forms.within((200, 200), whole - 1)
    assert form.tokens < whole
    assert forms.full(form.pixels or (200, 200)) == form.tokens


def processor_of(kind: str) -> Any:
    """A processor whose image processor has a class of this name."""
    processor = type("Processor", (), {})()
    processor.image_processor = type(kind, (), {})()
    return processor


@pytest.mark.parametrize("family", ["gemma3", "smolvlm", "mistral3"])
def test_families_that_do_not_describe_their_sizes_are_refused(family: str) -> None:
    with pytest.raises(UnsupportedError, match="can encode an image are not described"):
        find_adapter(build(family)).input_forms(processor_of("Any"), 1)


def test_other_processors_are_refused() -> None:
    for family in ("qwen2_5_vl", "llava", "internvl", "llava_next"):
        with pytest.raises(UnsupportedError, match="the sizes that SomeProcessor makes are not described"):
            find_adapter(build(family)).input_forms(processor_of("SomeProcessor"), 1)
