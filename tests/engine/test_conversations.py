"""Conversations with images in the system prompt and in turns of the assistant, through stored processors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from jinja2 import UndefinedError
from PIL import Image

from tests.helpers import checkpoints
from tests.helpers.pruners import Probe
from tests.helpers.real_processors import CHECKPOINTS, processor
from uniprune.engine import QuestionFinder, prune
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.loading import LoadedModel, Placement, load

pytestmark = pytest.mark.end_to_end

QUESTION = "What color is the circle ?"
IMAGE = {"type": "image"}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": [IMAGE, text("is there a circle ?")]},
    {"role": "user", "content": [text(QUESTION), IMAGE, text("how many ?")]},
    {"role": "assistant", "content": [IMAGE, text("yes")]},
    {"role": "user", "content": [text(QUESTION)]},
]


@pytest.fixture(scope="module", params=["llava", "llava-next", "internvl", "qwen2.5-vl", *checkpoints.PROCESSORS])
def stored(
    request: pytest.FixtureRequest, checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> LoadedModel:
    """A model and its processor, loaded from a folder."""
    name = request.param
    path = tmp_path_factory.mktemp(name) / "model"
    path = checkpoints.save(name, path) if name in checkpoints.PROCESSORS else checkpoint(name)
    return load(ModelEntry(name=name, source=str(path)), Placement("float32", "sdpa", "cpu"))


def prepared(loaded: LoadedModel) -> dict[str, Any]:
    processor = loaded.processor
    prompt = processor.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
    images = [Image.effect_noise((96, 96), 40 + i).convert("RGB") for i in range(3)]
    return dict(processor(text=prompt, images=[images], add_special_tokens=False, return_tensors="pt"))


def test_images_of_every_role_are_pruned_apart(stored: LoadedModel) -> None:
    x, model = prepared(stored), stored.model
    plain = model.generate(**x, max_new_tokens=4, do_sample=False)
    with prune(model, DivPrune() >> FastV()):
        assert torch.equal(model.generate(**x, max_new_tokens=4, do_sample=False), plain)
    with prune(model, DivPrune(ratio=0.5)) as session, torch.no_grad():
        model(**x)
    [row] = session.reports[-1].rows
    sizes = [len(group.ranks) for group in row.groups]
    assert len(sizes) == 3
    assert row.entering[0] == sum(-(-size // 2) for size in sizes)


def test_the_question_of_the_last_turn_is_found(stored: LoadedModel) -> None:
    """Not the same words of an earlier turn, nor text of the system prompt after its image."""
    x = prepared(stored)
    ids = x["input_ids"][0]
    info = QuestionFinder(stored.processor).info("0", ids, QUESTION)
    assert info.positions is not None
    assert stored.processor.tokenizer.decode(ids[info.positions]).split() == QUESTION.replace(" ?", "?").split()
    visual = torch.isin(ids, torch.tensor(stored.adapter.visual_token_ids)).nonzero()[:, 0]
    assert int(info.positions[0]) > int(visual[-1])
    probe = Probe(look=lambda view: view.prompt, plan={0: 0.5})
    with prune(stored.model, probe) as session, torch.no_grad():
        session.samples = (info,)
        stored.model(**x)
    assert {len(seen) for seen in probe.seen.values()} == {len(info.question if info.question is not None else ())}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_published_templates_accept_such_conversations_or_refuse_them(name: str) -> None:
    real, images = processor(name), [Image.new("RGB", (60, 50))] * 3
    try:
        prompt = real.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
    except UndefinedError as error:
        assert name == "llava-v1.6-mistral-7b-hf"
        assert "has no attribute 'text'" in str(error)
        return
    ids = real(text=prompt, images=[images], add_special_tokens=False, return_tensors="pt")["input_ids"][0]
    found = QuestionFinder(real).find(ids.tolist(), QUESTION)
    assert found.exact
    visual = (ids == real.tokenizer.convert_tokens_to_ids(real.image_token)).nonzero()[:, 0]
    assert found.positions[0] > int(visual[-1])
