"""Every family that takes videos, from its processor's real class to the answer: counts, batches, the model's own."""

from __future__ import annotations

from functools import cache, partial
from math import prod

import pytest
import torch

from tests.helpers.video_models import FAMILIES, SIDE, video_model
from tests.helpers.videos import frame
from uniprune.engine import prune
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.frame_sampling import FrameSampling
from uniprune.evaluation.generation import Generator
from uniprune.evaluation.processing import EncodedRequest, RequestEncoder
from uniprune.evaluation.runner import Runner
from uniprune.evaluation.video_files import video_of
from uniprune.evaluation.video_support import check_videos
from uniprune.methods.random_pre import RandomPre
from uniprune.modeling.loading import LoadedModel
from uniprune.modeling.messages import Part
from uniprune.registry import MODELS

pytestmark = pytest.mark.end_to_end

SECOND = FrameSampling(None, 1)
NEWLINES = {"llava_onevision": 5, "llava_next_video": 4}
"""Placeholders of an image and a video without a token: ends of rows, and of a video."""
family = pytest.mark.parametrize("family", FAMILIES)


@cache
def model_of(family: str) -> LoadedModel:
    return video_model(family)


def request(seconds: int) -> Request:
    """A video of as many seconds, at four frames a second."""
    images = [frame(number % 25, (SIDE, SIDE)) for number in range(4 * seconds)]
    parts = [Part(video=video_of(images, 4.0)), Part("How many?")]
    return Request(str(seconds), lambda: parts, "How many?", 4, wording=(0, "How many?"), videos=1)


def encoded(family: str, seconds: int) -> EncodedRequest:
    row = RequestEncoder(model_of(family).processor, sampling=SECOND).encode(request(seconds))
    assert (row.error, row.frames, row.remarks) == (None, seconds, ())
    return row


def test_these_are_the_families_with_videos() -> None:
    """Others of a kind, such as mixtures of experts, have the processor of one that is here."""
    named = {name for name in MODELS.names() if MODELS.get(name).videos}
    assert named - set(FAMILIES) == {"glm46v", "glm4v_moe", "qwen3_vl_moe"}
    for name in FAMILIES:
        check_videos(model_of(name), "clips", [request(4)], shares_features=False)


@family
@pytest.mark.parametrize("seconds", [4, 5])
def test_tokens_are_those_of_the_frames(family: str, seconds: int) -> None:
    row, loaded = encoded(family, seconds), model_of(family)
    with prune(loaded.model, RandomPre(ratio=0.5)) as session:
        Generator(loaded).generate([row])
    [report] = session.reports[-1].rows
    steps = seconds if family.startswith("llava") else -(-seconds // 2)
    assert sum(t for [group] in [report.grids] for t, _, _ in group) == steps
    assert report.initial == sum(prod(grid) for [group] in [report.grids] for grid in group)
    placed = int(
        torch.isin(torch.from_numpy(row.inputs["input_ids"]), torch.tensor(loaded.adapter.visual_token_ids)).sum()
    )
    assert report.initial + report.markers[0] == placed
    assert report.entering == [round(report.initial / 2)] * len(report.entering)


@family
def test_without_pruning_the_answer_is_the_models_own(family: str) -> None:
    row, loaded = encoded(family, 4), model_of(family)
    [ours] = Generator(loaded).generate([row])
    inputs = {name: torch.from_numpy(value) for name, value in row.inputs.items()}
    own = loaded.model.generate(**inputs, max_new_tokens=row.length, do_sample=False)[0, row.tokens :]
    assert ours.text == loaded.processor.tokenizer.decode(own, skip_special_tokens=True).strip()


@family
def test_an_image_and_a_video_are_asked_together_where_the_model_takes_both(family: str) -> None:
    loaded, images = model_of(family), [frame(number, (SIDE, SIDE)) for number in range(16)]
    rows = [
        Request(
            str(place), partial(list, [*parts[:place], Part(image=images[9]), *parts[place:]]), "How many?", 4, videos=1
        )
        for parts in [[Part(video=video_of(images, 4.0)), Part("How many?")]]
        for place in (0, 1)
    ]
    texts = []
    for size in (2, 1):
        with Runner(loaded, RandomPre(ratio=0.5), size, sampling=SECOND) as runner:
            found = [one for batch in runner.predictions(rows) for one in batch]
        texts.append([(one.index, one.prediction, one.visual_tokens, one.initial, one.error) for one in found])
    assert texts[0] == texts[1]
    if not loaded.adapter.mixes:
        assert all("images and videos in one message are not supported" in str(error) for *_, error in texts[0])
        return
    encoder = RequestEncoder(loaded.processor, sampling=SECOND, mixes=True)
    ids = encoder.encode(rows[0]).inputs["input_ids"]
    placed = int(torch.isin(torch.from_numpy(ids), torch.tensor(loaded.adapter.visual_token_ids)).sum())
    placed -= NEWLINES.get(family, 0)
    assert [(initial, error) for *_, initial, error in texts[0]] == [(placed, None)] * 2
    assert all(kept is not None and 0 < kept[0] < placed for _, _, kept, _, _ in texts[0])


@family
def test_videos_of_other_lengths_answer_as_alone(family: str) -> None:
    rows, loaded = [request(seconds) for seconds in (6, 4, 7, 5)], model_of(family)
    texts = []
    for size in (4, 1):
        with Runner(loaded, RandomPre(ratio=0.5), size, sampling=SECOND) as runner:
            batches = list(runner.predictions(rows))
        found = {one.index: (one.prediction, one.visual_tokens, one.frames) for batch in batches for one in batch}
        texts.append(found)
    assert texts[0] == texts[1]
    assert {index: frames for index, (_, _, frames) in texts[0].items()} == {"4": 4, "5": 5, "6": 6, "7": 7}
