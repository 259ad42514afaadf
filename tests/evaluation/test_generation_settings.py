"""Generation settings of a checkpoint change no prediction, and every prediction ends where its files say it ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from tests.helpers.paths import ROOT
from uniprune.errors import UserError
from uniprune.evaluation.collection import DatasetCollection
from uniprune.evaluation.generation import Generator
from uniprune.evaluation.processing import RequestEncoder
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.greedy import ignored_settings
from uniprune.modeling.loading import LoadedModel, Placement, load

pytestmark = pytest.mark.end_to_end

TINY = ROOT / "models" / "tiny" / "llava"
ROWS = 6
Edit = Callable[[dict[str, Any]], object]


def loaded_from(folder: Path) -> LoadedModel:
    return load(ModelEntry(name="tiny", source=str(folder)), Placement("float32", "sdpa", "cpu"))


@pytest.fixture(scope="module")
def predict(tmp_path_factory: pytest.TempPathFactory) -> Callable[[LoadedModel], list[tuple[str, int]]]:
    """Texts and lengths of a few rows."""
    [dataset] = DatasetCollection(tmp_path_factory.mktemp("data")).all(["mini-ocrbench"])
    requests = dataset.requests(ROWS)

    def of(loaded: LoadedModel) -> list[tuple[str, int]]:
        encoder = RequestEncoder(loaded.processor)
        replies = Generator(loaded).generate([encoder.encode(request) for request in requests])
        return [(reply.text, reply.tokens) for reply in replies]

    return of


@pytest.fixture(scope="module")
def shipped() -> LoadedModel:
    return loaded_from(TINY)


@pytest.fixture(scope="module")
def plain(shipped: LoadedModel, predict: Callable[[LoadedModel], list[tuple[str, int]]]) -> list[tuple[str, int]]:
    found = predict(shipped)
    assert all(length < 32 for _, length in found), "predictions do not end"
    return found


@pytest.fixture
def settings(shipped: LoadedModel) -> Iterator[GenerationConfig]:
    """The model's generation configuration, put back afterwards."""
    kept = shipped.model.generation_config
    shipped.model.generation_config = GenerationConfig.from_dict(kept.to_dict())
    yield shipped.model.generation_config
    shipped.model.generation_config = kept


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "leftover",
    [
        {"use_cache": False}, {"no_repeat_ngram_size": 1}, {"exponential_decay_length_penalty": (1, 5.0)},
        {"max_time": 0.001}, {"guidance_scale": 2.0}, {"return_dict_in_generate": True}, {"num_return_sequences": 2},
        {"repetition_penalty": 1.3, "do_sample": True}, {"min_new_tokens": 12}, {"suppress_tokens": list(range(5, 60))},
        {"begin_suppress_tokens": list(range(5, 60))}, {"forced_eos_token_id": 9}, {"sequence_bias": {(7,): 90.0}},
        {"bad_words_ids": [[7], [8], [9]]}, {"num_beams": 3}, {"length_penalty": 2.0}, {"max_length": 3},
        {"cache_implementation": "offloaded"}, {"watermarking_config": {"bias": 9.0}}, {"stop_strings": ["e", "a"]},
    ],
    ids=lambda leftover: next(iter(leftover)),
)  # fmt: skip
def test_a_setting_that_a_checkpoint_ships_is_ignored_and_recorded(
    leftover: dict[str, Any],
    shipped: LoadedModel,
    settings: GenerationConfig,
    plain: list[tuple[str, int]],
    predict: Callable[[LoadedModel], list[tuple[str, int]]],
) -> None:
    for name, value in leftover.items():
        setattr(settings, name, value)
    before = settings.to_dict()
    assert predict(shipped) == plain
    assert shipped.model.generation_config is settings and settings.to_dict() == before, "the model is not as it was"
    assert leftover.keys() <= ignored_settings(shipped.model).keys()


def nothing(_: dict[str, Any]) -> None:
    """Change nothing."""


def without_special_end(tokenizer: dict[str, Any]) -> None:
    for token in tokenizer["added_tokens"]:
        token["special"] = token["special"] and token["content"] != "<eos>"


@pytest.mark.parametrize(
    ("generation", "tokenizer", "tokenizer_config"),
    [
        (lambda c: c.update(eos_token_id=None), nothing, nothing),
        (lambda c: c.update(eos_token_id=149), nothing, nothing),
        (lambda c: c.update(eos_token_id=[149, 150]), nothing, nothing),
        (nothing, without_special_end, lambda c: c.pop("eos_token")),
    ],
    ids=["none", "another", "two others", "not special"],
)
def test_a_prediction_ends_where_any_file_of_the_checkpoint_says(
    generation: Edit,
    tokenizer: Edit,
    tokenizer_config: Edit,
    plain: list[tuple[str, int]],
    predict: Callable[[LoadedModel], list[tuple[str, int]]],
    tmp_path: Path,
) -> None:
    edits = {"generation_config": generation, "tokenizer": tokenizer, "tokenizer_config": tokenizer_config}
    assert predict(loaded_from(edited(tmp_path, edits))) == plain


def test_a_checkpoint_without_any_end_is_refused(tmp_path: Path) -> None:
    def no_end(config: dict[str, Any]) -> None:
        config.pop("eos_token", None)
        config.pop("eos_token_id", None)
        config.get("text_config", {}).pop("eos_token_id", None)

    def null_end(config: dict[str, Any]) -> None:
        config["eos_token_id"] = None
        config.get("text_config", {})["eos_token_id"] = None

    edits = {"generation_config": null_end, "tokenizer_config": no_end, "config": null_end}
    with pytest.raises(UserError, match="so no prediction would end; add the checkpoint"):
        Generator(loaded_from(edited(tmp_path, edits)))


def edited(folder: Path, edits: dict[str, Edit]) -> Path:
    """A copy of the tiny checkpoint with some of its files changed."""
    copy = Path(shutil.copytree(TINY, folder / "model"))
    for name, edit in edits.items():
        file = copy / f"{name}.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        edit(content)
        file.write_text(json.dumps(content), encoding="utf-8")
    return copy
