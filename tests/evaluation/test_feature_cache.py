"""Image features and prompts shared by methods, and rows prepared by workers: the same predictions, less work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import pytest
from PIL import Image

from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.feature_cache import FeatureCache, sharing, supports_sharing
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.processing import RequestEncoder, hashed
from uniprune.evaluation.runner import Runner
from uniprune.evaluation.workers import explain_worker_failure, windows
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.loading import LoadedModel, Placement, load
from uniprune.modeling.messages import Part
from uniprune.results.predictions import Prediction

pytestmark = pytest.mark.end_to_end

METHODS = ("none", "divprune", "fastv", "visionzip", "prumerge", "mustdrop")
"""Without needs, by features, by attention of the language model, by several vision layers, merging, hybrid."""


TILES = {"max_patches": 3}


@pytest.fixture(scope="module", params=["llava", "llava-next", "internvl", "internvl tiled", "qwen2.5-vl", "qwen3-vl"])
def loaded(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> LoadedModel:
    family, *tiled = request.param.split()
    entry = ModelEntry(name="tiny", source=str(checkpoint(family)), image_processor=TILES if tiled else {})
    model = load(entry, Placement("float32", "sdpa", "cpu"))
    if not supports_sharing(model.model):
        pytest.skip("this transformers encodes images inside generate only")
    return model


def rows() -> list[Request]:
    sizes = [(96, 96), (192, 96), (96, 96)]
    images = [Image.effect_noise(size, 40 + 20 * i).convert("RGB") for i, size in enumerate(sizes)]
    shown = [(0,), (1,), (0,), (), (1, 2), (2, 0), (1,)]
    texts = [f"question {i} " + "word " * (7 * i % 5) for i in range(len(shown))]
    messages = [[*(Part(image=images[n]) for n in row), Part(text=texts[i])] for i, row in enumerate(shown)]
    return [
        Request(str(i), partial(list, parts), question=texts[i], max_new_tokens=3) for i, parts in enumerate(messages)
    ]


REQUESTS = rows()
"""Seven rows about three images, one of them wide; two rows have two images, one has none."""


def answers(
    loaded: LoadedModel, method: str, shared: FeatureCache | None = None, workers: int = 0, tokens: int = 3
) -> dict[str, Prediction]:
    pruner = MethodSpec(method, ratio=1.0 if method == "none" else 0.25).pruner()
    requests = [replace(one, max_new_tokens=tokens) for one in REQUESTS]
    with Runner(loaded, pruner, batch_size=2, workers=workers, shared=shared) as runner:
        found = [answer for batch in runner.predictions(requests, "data") for answer in batch]
    assert len(found) == len(REQUESTS)
    return {answer.index: answer for answer in found}


@pytest.fixture
def looks(loaded: LoadedModel) -> Iterator[list[int]]:
    """One entry per call of the vision tower."""
    calls: list[int] = []
    handle = loaded.adapter.vision.register_forward_hook(lambda *_: calls.append(1))
    yield calls
    handle.remove()


def test_shared_features_give_the_same_answers_and_the_tower_looks_once(loaded: LoadedModel, looks: list[int]) -> None:
    alone = {method: answers(loaded, method) for method in METHODS}
    looks.clear()
    shared = FeatureCache(10**9)
    seen = {}
    for method in METHODS:
        got = answers(loaded, method, shared)
        seen[method] = len(looks)
        for index, answer in got.items():
            assert answer.prediction == alone[method][index].prediction
            assert answer.visual_tokens == alone[method][index].visual_tokens
            assert answer.spans is None
    assert seen["none"] == 3, "once per picture, whatever is beside it"
    assert seen["divprune"] == seen["fastv"] == seen["none"], "nothing new to look at"


def test_what_does_not_fit_is_encoded_again(loaded: LoadedModel, looks: list[int]) -> None:
    alone = answers(loaded, "divprune")
    looks.clear()
    shared = FeatureCache(0)
    for repeat in (1, 2):
        got = answers(loaded, "divprune", shared)
        assert {i: a.prediction for i, a in got.items()} == {i: a.prediction for i, a in alone.items()}
        assert 6 * repeat <= len(looks) <= 8 * repeat, "once per batch"


def test_the_limit_covers_everything_that_is_kept(loaded: LoadedModel) -> None:
    def kept(limit: int) -> int:
        shared = FeatureCache(limit)
        for method in ("divprune", "visionzip", "mustdrop"):  # of those that keep the same, one
            answers(loaded, method, shared, tokens=1)
        values = [*shared._calls.values(), *shared._rows.values()]
        assert limit - shared._free == sum(value.memory for value in values)
        return limit - shared._free

    everything = kept(10**9)
    assert 0.4 * everything < kept(everything // 2) <= everything // 2
    assert kept(everything) == everything


@pytest.mark.sample(2)
@pytest.mark.parametrize("per_image", [False, True])
def test_rows_prepared_by_workers_are_the_same(loaded: LoadedModel, per_image: bool) -> None:
    def rows(workers: int) -> list[tuple[object, ...]]:
        portions = windows(RequestEncoder(loaded.processor, per_image), REQUESTS, 3, workers)
        return [
            (
                row.index,
                hashed({"question": row.question, "asked": row.asked, **row.inputs}),
                [(p.key, hashed(p.visual)) for p in row.images],
            )
            for row in chain.from_iterable(portions)
        ]

    assert rows(0) == rows(2)
    methods = (FeatureCache(10**9), FeatureCache(10**9)) if per_image else (None, None)
    alone, helped = (answers(loaded, "divprune", shared, n) for n, shared in zip((0, 2), methods, strict=True))
    times = {"spans": None, "ttft": None, "tpot": None}
    assert {i: a.model_copy(update=times) for i, a in alone.items()} == {
        i: a.model_copy(update=times) for i, a in helped.items()
    }


@pytest.mark.parametrize(
    "error",
    [RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), EOFError(), ConnectionResetError()],
)
def test_a_dead_worker_is_explained_however_it_is_noticed(error: Exception) -> None:
    with pytest.raises(UserError, match="run the same command again"), explain_worker_failure():
        raise error


def test_other_errors_are_left_to_others() -> None:
    with pytest.raises(RuntimeError, match="shape mismatch"), explain_worker_failure():
        raise RuntimeError("shape mismatch")


def test_sharing_is_refused_with_a_reason(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sharing(loaded, 0) is None
    with pytest.raises(UserError, match="-1"):
        sharing(loaded, -1)
    monkeypatch.setattr("uniprune.evaluation.feature_cache.supports_sharing", lambda model: False)
    with pytest.raises(UserError, match="transformers"):
        sharing(loaded, 1)
