"""Rows against the model: context and token limit, counted alike however a run is executed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.helpers.paths import PLUGINS
from uniprune.evaluation.dataset import DataOptions, Request
from uniprune.evaluation.feature_cache import FeatureCache
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.processing import EncodedRequest, RequestEncoder
from uniprune.evaluation.run import Run
from uniprune.evaluation.workers import windows
from uniprune.modeling.catalog import find_model
from uniprune.modeling.loading import LoadedModel, Placement, load
from uniprune.registry import BENCHMARKS, load_plugin
from uniprune.results.predictions import Prediction, prediction_lines
from uniprune.results.records import DatasetRecord
from uniprune.results.remarks import CONTEXT, CUT, REMARKS, WINDOWED
from uniprune.results.store import Store
from uniprune.utils.console import RunProgress

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module", params=["tiny-llava", "tiny-qwen2.5-vl"])
def trained(request: pytest.FixtureRequest) -> LoadedModel:
    """A model that ends its answers."""
    load_plugin(PLUGINS / "small_benchmark.py")
    return load(find_model(request.param), Placement("float32", "sdpa", "cpu"))


@pytest.fixture
def context(trained: LoadedModel) -> Iterator[Any]:
    """The decoder's configuration, restored afterwards."""
    config = trained.adapter.decoder.config
    stated = config.max_position_embeddings
    yield config
    config.max_position_embeddings = stated


def evaluate(
    loaded: LoadedModel, output: Path, method: str = "none", shared: FeatureCache | None = None, **options: Any
) -> tuple[DatasetRecord, list[Prediction], str]:
    """Return the benchmark's record, its predictions, and what was printed."""
    store, printed = Store(output), io.StringIO()
    choice = MethodSpec(method, 1.0 if method == "none" else 0.25)
    run = Run(loaded, choice, RunOptions(**{"limit": 6} | options))
    with RunProgress(6, Console(file=printed, width=200)) as progress:
        record = run.evaluate([BENCHMARKS.get("small")(DataOptions(Path("unused")))], store, progress, shared)
    rows = list(prediction_lines(store.predictions(record.identity, "small")).read())
    return record.datasets["small"], sorted(rows, key=lambda row: row.index), printed.getvalue()


def test_answers_without_an_end_token_are_cut(trained: LoadedModel, tmp_path: Path) -> None:
    whole, rows, printed = evaluate(trained, tmp_path, max_new_tokens=64)
    assert whole.remarks == {}
    assert REMARKS[CUT] not in printed
    lengths = [int(row.new_tokens or 0) for row in rows]
    exact, _, _ = evaluate(trained, tmp_path, max_new_tokens=max(lengths))
    assert exact.remarks == {}, "the end token is the last one that fits"
    cut, rows, printed = evaluate(trained, tmp_path, max_new_tokens=max(lengths) - 1)
    number = lengths.count(max(lengths))
    assert cut.remarks == {CUT: number}
    assert [row.remarks for row in rows] == [[CUT] * (length == max(lengths)) for length in lengths]
    assert f"{number} of 6 rows ({100 * number / 6:.3g} %) {REMARKS[CUT]}" in printed


@pytest.mark.parametrize("method", ["none", "divprune"])
def test_rows_beyond_the_context_are_counted_un_pruned(
    trained: LoadedModel, context: Any, method: str, tmp_path: Path
) -> None:
    highest: list[int] = []
    one = {"limit": 1, "max_new_tokens": 64}

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        positions = kwargs["position_ids"]  # the first of four axes counts tokens
        highest.append(int((positions[-3:] if positions.dim() == 3 else positions).max()))

    handle = trained.adapter.decoder.register_forward_pre_hook(note, with_kwargs=True)
    try:
        fits, [row], _ = evaluate(trained, tmp_path / "fits", method, **one)
    finally:
        handle.remove()
    assert fits.remarks == {}
    used = max(highest) + 1
    tokens = (row.initial or 0) + (row.text_tokens or 0) + int(row.new_tokens or 0) - 1
    assert used == tokens if trained.adapter.merge == 1 else used < tokens, "M-RoPE counts no rows of an image"
    for stated, remarks in ((used, {}), (used - 1, {CONTEXT: 1})):
        context.max_position_embeddings = stated
        entry, _, printed = evaluate(trained, tmp_path / str(stated), method, **one)
        assert entry.remarks == remarks
        assert (f"1 of 1 rows (100 %) {REMARKS[CONTEXT]}" in printed) == bool(remarks)
        named = (
            f"row 0 takes {used} positions with its answer ({row.initial} visual tokens), but the model was made for"
        )
        assert (f"{named} {stated}" in " ".join(printed.split())) == bool(remarks)


def test_counts_are_the_same_however_rows_are_run(trained: LoadedModel, context: Any, tmp_path: Path) -> None:
    context.max_position_embeddings = 8
    expected = {CONTEXT: 6, CUT: 6}
    alone, rows, _ = evaluate(trained, tmp_path / "alone", max_new_tokens=1)
    assert (alone.remarks, alone.batching) == (expected, {"8": 6})
    workers, _, _ = evaluate(trained, tmp_path / "workers", max_new_tokens=1, workers=2)
    assert workers.remarks == expected
    cache = FeatureCache(10**9)
    for turn in ("first", "cached"):
        shared, _, _ = evaluate(trained, tmp_path / turn, shared=cache, max_new_tokens=1, batch_size=4)
        assert (shared.remarks, shared.batching) == (expected, {"4 with --share-vision": 6})
    path = next((tmp_path / "alone").glob("*/small.jsonl"))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    resumed, again, _ = evaluate(trained, tmp_path / "alone", max_new_tokens=1, batch_size=3)
    assert (resumed.remarks, resumed.batching) == (expected, {"3": 4, "8": 2})
    assert [row.remarks for row in again] == [row.remarks for row in rows]


@pytest.mark.parametrize("workers", [0, 1])
def test_remarks_of_a_row_survive_workers_and_the_cache(workers: int) -> None:
    class Remarking(RequestEncoder):
        def __init__(self) -> None:
            pass

        def encode(self, request: Request) -> EncodedRequest:
            return EncodedRequest(request.index, remarks=("seen",))

    requests = [Request(str(i), list, "") for i in range(3)]
    encoded = [row for window in windows(Remarking(), requests, 2, workers) for row in window]
    assert [(row.index, row.without_pixels().remarks) for row in encoded] == [(str(i), ("seen",)) for i in range(3)]


@pytest.mark.parametrize("trained", ["tiny-llava"], indirect=True)
def test_rows_beyond_the_window_of_the_attention_that_is_read_are_counted(
    trained: LoadedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """FastV reads layer 1; a method that reads no attention is not concerned."""
    config = trained.adapter.decoder.config
    kinds = ["full_attention", "sliding_attention", *["full_attention"] * (config.num_hidden_layers - 2)]
    monkeypatch.setattr(config, "layer_types", kinds, raising=False)
    found = {}
    for window in (8, 10_000):
        monkeypatch.setattr(config, "sliding_window", window, raising=False)
        for method in ("fastv", "divprune"):
            record, _, printed = evaluate(trained, tmp_path / str(window), method, max_new_tokens=1, limit=1)
            found[window, method] = WINDOWED in record.remarks, REMARKS[WINDOWED] in printed
    assert found.pop((8, "fastv")) == (True, True)
    assert set(found.values()) == {(False, False)}
