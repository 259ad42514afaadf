"""LLaVA-OneVision behind its own processor: one image, several, and features that methods share."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlavaOnevisionImageProcessorPil, LlavaOnevisionProcessor, LlavaOnevisionVideoProcessor

from tests.evaluation.test_video_rows import ask, clip, evaluate
from tests.helpers.image_processors import photo
from tests.helpers.pruners import generate
from uniprune.engine import prune
from uniprune.engine.vision_batch import supports_sharing
from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.frame_sampling import FrameSampling
from uniprune.evaluation.processing import EncodedRequest, RequestEncoder, collate
from uniprune.methods.vispruner import VisPruner
from uniprune.modeling.catalog import ModelEntry, find_model
from uniprune.modeling.image_check import check_image_settings
from uniprune.modeling.image_settings import ImageSettings
from uniprune.modeling.loading import Placement, load
from uniprune.modeling.messages import Part
from uniprune.models.llava_onevision import TinyLlavaOnevision
from uniprune.models.tiny.build import build_processor
from uniprune.results.predictions import prediction_lines
from uniprune.results.store import Store

pytestmark = pytest.mark.end_to_end

TINY = TinyLlavaOnevision((4, 4))
TEMPLATE = (
    "{% for message in messages %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}<image>\n{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'video') %}<video>\n{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}"
    "{% endfor %}{% endfor %}"
)


@cache
def processor() -> Any:
    """Tiles of 4 x 4 tokens."""
    side = {"height": TINY.side, "width": TINY.side}
    images = LlavaOnevisionImageProcessorPil(size=side, image_grid_pinpoints=TINY.pinpoints)
    tokenizer = copy.deepcopy(build_processor("llava").tokenizer)
    tokenizer.add_tokens(["<video>"], special_tokens=True)
    return LlavaOnevisionProcessor(
        images,
        tokenizer,
        LlavaOnevisionVideoProcessor(size=side),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE,
    )


@cache
def model() -> Any:
    tokenizer = processor().tokenizer
    built = TINY.model(vocab_size=len(tokenizer))
    for name in ("image", "video"):
        setattr(built.config, f"{name}_token_id", tokenizer.convert_tokens_to_ids(f"<{name}>"))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(built.generation_config, name, getattr(tokenizer, name))
    return built


def encoded(*sizes: tuple[int, int], one_by_one: bool, per_image: bool = False) -> EncodedRequest:
    encoder = RequestEncoder(processor(), per_image, settings=ImageSettings(one_by_one=one_by_one))
    parts = [*(Part(image=photo(*size, seed=i)) for i, size in enumerate(sizes)), Part(text="what is it ?")]
    row = encoder.encode(Request("0", lambda: parts, question="what is it ?"))
    assert row.error is None
    return row


@pytest.mark.parametrize(
    ("one_by_one", "counts", "grids"),
    [
        (False, [2], (((1, 4, 4),), ((1, 4, 4),))),
        (True, [1, 1], (((1, 4, 4), (1, 4, 8)), ((1, 4, 4), (1, 8, 4)))),
    ],
)
def test_images_of_a_prompt_are_cut_one_by_one_only(
    one_by_one: bool, counts: list[int], grids: tuple[tuple[tuple[int, int, int], ...], ...]
) -> None:
    """Images one by one, as VLMEvalKit's wrapper has them, and together, as the processor does."""
    row = encoded((112, 56), (56, 112), one_by_one=one_by_one)
    assert row.inputs["batch_num_images"].tolist() == counts
    with prune(model(), VisPruner(ratio=0.5)) as session:
        generate(model(), collate([row], 0), 1)
    assert session.reports[-1].rows[0].grids == grids


@pytest.mark.skipif(not supports_sharing(model()), reason="this transformers takes no features in generate")
@pytest.mark.parametrize("one_by_one", [False, True])
def test_shared_features_are_those_of_the_prompt(one_by_one: bool) -> None:
    """Of an image among others, too, which is encoded by itself."""
    sizes = ((112, 56), (56, 112))
    row, shared = (encoded(*sizes, one_by_one=one_by_one, per_image=per_image) for per_image in (False, True))
    assert (len(row.images), len(shared.images)) == (0, 2)
    with prune(model(), VisPruner(ratio=0.5)) as session, torch.no_grad():
        want, _ = generate(model(), collate([row], 0), 3)
        calls = [
            session.encode({name: torch.from_numpy(value) for name, value in image.visual.items()})
            for image in shared.images
        ]
        got, _ = generate(model(), collate([shared], 0), 3, mm_encoder_outputs=session.present(calls))
    assert torch.equal(want, got)
    first, second = (report.rows[0].stages[0].kept for report in session.reports)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_the_setting_is_checked() -> None:
    assert find_model("llava-onevision-7b").image_settings("mmmu").one_by_one
    check_image_settings(processor(), ModelEntry(name="x", source="a/x", one_by_one=True))
    with pytest.raises(UserError, match="one_by_one=true has no effect on CLIPImageProcessor"):
        check_image_settings(build_processor("llava"), ModelEntry(name="x", source="a/x", one_by_one=True))


def test_videos_of_one_length_form_a_batch(tmp_path: Path) -> None:
    """All frames of a batch are one array: rows of two and of three frames are not mixed."""
    model().save_pretrained(tmp_path / "model")
    processor().save_pretrained(tmp_path / "model")
    loaded = load(ModelEntry(name="x", source=str(tmp_path / "model")), Placement("float32", "sdpa", "cpu"))
    rows = [ask(str(number), clip(frames)) for number, frames in enumerate((8, 12, 8, 12))]
    record, _ = evaluate(loaded, tmp_path, rows, sampling=FrameSampling(None, 1), batch_size=4)
    lines = prediction_lines(Store(tmp_path).predictions(record.identity, "clips")).read()
    seen = sorted((line.index, line.frames, line.batch, line.initial) for line in lines)
    assert seen == [(str(number), (2, 3)[number % 2], 2, (8, 12)[number % 2]) for number in range(4)]
