"""The budget ledger: cache bytes from real caches, layer averages, adaptive methods, and how records show them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache, StaticCache

from tests.helpers.paths import PLUGINS
from tests.helpers.tiny import FAMILIES, build, inputs, tiny_model
from uniprune.cli.main import main
from uniprune.engine import prune
from uniprune.engine.vision_batch import supports_sharing
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.mustdrop import MustDrop
from uniprune.methods.none import NoPruning
from uniprune.methods.pyramiddrop import PyramidDrop
from uniprune.methods.vtw import VTW
from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import with_average
from uniprune.results.leaderboard import leaderboard
from uniprune.results.store import Store

pytestmark = pytest.mark.end_to_end

family = pytest.mark.parametrize("family", FAMILIES)
METHODS: list[Pruner] = [
    NoPruning(), DivPrune(ratio=0.3), FastV(ratio=0.3), DivPrune(ratio=0.6) >> FastV(ratio=0.3, layer=3),
    PyramidDrop(ratio=0.3), VTW(ratio=0.5), MustDrop(ratio=1 / 9, individual_threshold=1.0, global_threshold=1.0),
]  # fmt: skip
"""The last one evicts: with these thresholds only key tokens survive its first filter."""


def held(cache: Any) -> int:
    """Return the bytes of all tensors a cache holds."""
    return sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))


@pytest.mark.parametrize("pruner", METHODS, ids=lambda pruner: type(pruner).__name__)
@family
def test_cache_bytes_are_those_of_the_real_cache(family: str, pruner: Pruner) -> None:
    model, cache = build(family), DynamicCache()
    with prune(model, pruner) as session:
        model(**inputs(family, (2,)), past_key_values=cache, use_cache=True)
    assert session.reports[0].rows[0].kv_bytes == held(cache)


def test_the_evicting_method_evicts() -> None:
    """Otherwise the test above would not see an evicted cache."""
    caches = {}
    for evict in (True, False):
        cache, pruner = DynamicCache(), replace(METHODS[-1], evict=evict)  # type: ignore[call-arg]
        with prune(build("llava"), pruner):
            build("llava")(**inputs("llava"), past_key_values=cache, use_cache=True)
        caches[evict] = held(cache)
    assert caches[True] < caches[False]


def test_padding_and_room_not_yet_used_are_no_rows_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = build("qwen2_5_vl"), (1, 2)
    batch, cache = inputs("qwen2_5_vl", images), DynamicCache()
    with prune(model, DivPrune(ratio=0.5)) as session:
        model(**batch, past_key_values=cache, use_cache=True)
        small, large = session.reports[0].rows
        assert small.kv_bytes is not None and large.kv_bytes is not None
        assert 2 * large.kv_bytes == held(cache)
        assert small.kv_bytes * large.lengths[0] == large.kv_bytes * small.lengths[0]
        roomy = StaticCache(config=model.config.get_text_config(), max_cache_len=200)
        model(**inputs("qwen2_5_vl", (2,)), past_key_values=roomy)
        monkeypatch.setattr(model.config.get_text_config(), "use_cache", False)
        model(**inputs("qwen2_5_vl", (2,)))
    static, without = (report.rows[0] for report in session.reports[1:])
    assert static.kv_bytes is not None
    assert static.kv_bytes / sum(static.lengths) == large.kv_bytes / sum(large.lengths)
    assert without.kv_bytes == 0


def test_one_ninth_after_layer_2_is_a_layer_average_of_17_percent() -> None:
    """UniPruneBench (arXiv 2511.02650) labels such rows "11.1 %"; keeping 4.3 % there would be 11.1 %."""
    small = tiny_model("llava")
    small = type(small)((24, 24))
    model = small.model(num_hidden_layers=28)
    batch = small.batch([small.prompt(torch.Generator().manual_seed(0), [(24, 24)])])
    fair = with_average(FastV(ratio=1 / 9), 1 / 9, 28)
    rows = []
    for pruner in (FastV(ratio=1 / 9), fair):
        with prune(model, pruner) as session:
            model(**batch, logits_to_keep=1)
        rows.append(session.reports[0].rows[0])
    labelled, matched = rows
    assert labelled.entering == [576] * 2 + [64] * 26
    assert labelled.average_ratio == pytest.approx(0.1746, abs=1e-4)
    assert fair.ratio == pytest.approx(0.043, abs=5e-4)
    assert matched.entering == [576] * 2 + [25] * 26
    assert matched.average_ratio == pytest.approx(1 / 9, abs=1e-3)


# --- records and leaderboards ---------------------------------------------------------------------------------------
PLUGIN = PLUGINS / "small_benchmark.py"
ADAPTIVE = [
    ["prumerge", "--set", "adaptive=true"],
    ["mustdrop", "--set", "similarity=0.1"],
    ["sparsevlm-v1", "--layer", "2"],
]


def run(model: Path, output: Path, *more: str) -> dict[str, Any]:
    """Do one run by the command line and return its benchmark's entry."""
    words = ["--model", str(model), "--data", "small", "--plugin", str(PLUGIN), "--output", str(output)]
    assert main(["run", *words, "--limit", "2", *more]) == 0
    (path,) = output.glob("*/small.record.json")
    entry: dict[str, Any] = json.loads(path.read_text())
    return entry


@pytest.mark.parametrize("words", ADAPTIVE, ids=lambda words: words[0])
def test_adaptive_methods_declare_themselves_and_report_what_they_kept(
    words: list[str], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    ledger = run(checkpoint("llava"), tmp_path, "--ratio", "0.5", "--method", *words)["ledger"]
    assert (ledger["adaptive"], ledger["flagged"], ledger["requested"]) == (True, False, None)
    answers = [json.loads(line) for line in next(tmp_path.glob("*/small.jsonl")).read_text().splitlines()]
    kept = sum(sum(answer["visual_tokens"]) for answer in answers) / (6 * len(answers))
    assert ledger["average"] == pytest.approx(kept)
    assert abs(kept - 144 * 0.5) > 1, "by chance what the ratio would have meant: nothing is shown"
    (row,) = (board := leaderboard(list(Store(tmp_path).records()))).rows
    assert str(row["visual tokens"]) == f"{kept:.1f} ~"
    assert any("chooses its own number" in note for note in board.notes)
    assert not any("off the requested budget" in note for note in board.notes)


@pytest.mark.parametrize("name", ["llava", "internvl", "qwen2.5-vl", "qwen3-vl"])
def test_the_average_protocol_from_command_line_to_leaderboard(
    name: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    boards = {}
    for protocol in ("site", "average"):
        output = tmp_path / protocol
        ledger = run(checkpoint(name), output, "--method", "fastv", "--ratio", "0.5", "--protocol", protocol)["ledger"]
        initial = ledger["initial"]
        share = 0.5 if protocol == "average" else (2 + 4 * 0.5) / 6
        assert ledger["average"] / initial == pytest.approx(share, abs=1 / initial)
        assert (ledger["flagged"], ledger["adaptive"]) == (False, False)
        (boards[protocol],) = csv.DictReader((output / "leaderboard.csv").open())
        assert boards[protocol]["protocol"] == protocol
        assert float(boards[protocol]["visual tokens"]) == pytest.approx(ledger["average"])
        operations = sum(ledger["flops"].values())
        assert float(boards[protocol]["TFLOPs"]) == pytest.approx(operations / 1e12)
        assert float(boards[protocol]["KV MB"]) == pytest.approx(ledger["kv_bytes"] / 1e6)
    for column in ("visual tokens", "TFLOPs", "KV MB"):
        assert float(boards["average"][column]) < float(boards["site"][column])


def test_a_missed_budget_is_marked_and_explained(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """The engine enforces exact counts, so a miss is made up here."""
    run(checkpoint("llava"), tmp_path, "--method", "divprune", "--ratio", "0.5")
    (record,) = Store(tmp_path).records()
    entry = record.datasets["small"]
    assert entry.ledger is not None
    missed = entry.model_copy(update={"ledger": entry.ledger.model_copy(update={"flagged": True})})
    board = leaderboard([record.model_copy(update={"datasets": {"small": missed}})])
    assert str(board.rows[0]["visual tokens"]) == "72.0 !"
    assert any("off the requested budget" in note for note in board.notes)
    assert str(leaderboard([record]).rows[0]["visual tokens"]) == "72.0"


def test_shared_features_change_nothing_in_the_ledger(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """The tower's operations count for every method; its time would not be the method's own, so there is none."""
    if not supports_sharing(build("qwen2_5_vl")):
        pytest.skip("this transformers takes no image features in generate; 5.23 does")
    words = ("--method", "divprune", "--ratio", "0.5")
    alone = run(checkpoint("qwen2.5-vl"), tmp_path / "alone", *words)
    shared = run(checkpoint("qwen2.5-vl"), tmp_path / "shared", *words, "--share-vision", "1")
    assert shared["ledger"] == alone["ledger"]
    assert (alone["timing"] is None, shared["timing"]) == (False, None)
