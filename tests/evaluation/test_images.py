"""Image settings in runs: rows of one benchmark only, part of the identity, taken from an entry by --like."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from tests.helpers import records
from tests.helpers.paths import PLUGINS
from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.evaluation.config import RunSpec
from uniprune.evaluation.dataset import DataOptions, Request
from uniprune.evaluation.feature_cache import FeatureCache
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.plan import RunSettings
from uniprune.evaluation.run import Run
from uniprune.evaluation.runner import Runner
from uniprune.evaluation.sweep import Sweep
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.loading import LoadedModel, Placement, load
from uniprune.modeling.messages import Part
from uniprune.registry import BENCHMARKS, load_plugin
from uniprune.reports.papers.runs import StoredRuns
from uniprune.results.leaderboard import leaderboard
from uniprune.results.records import RunRecord
from uniprune.results.store import Store
from uniprune.utils.console import RunProgress

pytestmark = pytest.mark.end_to_end

Checkpoint = Callable[[str], Path]
CPU = Placement("float32", "sdpa", "cpu")
FEW = {"image_processor": {"size": {"shortest_edge": 256, "longest_edge": 576}}}
"""Nine visual tokens of tiny-qwen2.5-vl in place of 144."""


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> LoadedModel:
    """A tiny Qwen2.5-VL with fewer pixels on the benchmark "small"."""
    load_plugin(PLUGINS / "small_benchmark.py")
    return load(ModelEntry(name="tiny", source=str(checkpoint("qwen2.5-vl")), benchmarks={"small": FEW}), CPU)


def evaluate(model: LoadedModel, output: Path) -> RunRecord:
    datasets = [BENCHMARKS.get(name)(DataOptions(Path("unused"))) for name in ("small", "small-broken")]
    with RunProgress(24, Console(quiet=True)) as progress:
        return Run(model, MethodSpec("none"), RunOptions(limit=2)).evaluate(datasets, Store(output), progress)


def test_settings_of_a_benchmark_reach_its_rows_only(model: LoadedModel, tmp_path: Path) -> None:
    record = evaluate(model, tmp_path)
    found = {name: entry.ledger.average for name, entry in record.datasets.items() if entry.ledger}
    assert found == {"small": 9, "small-broken": 144}
    assert [record.datasets[name].images for name in ("small", "small-broken")] == [FEW, {}]
    assert record.setup.images == "paper"
    assert record.setup.processor["benchmarks"] == {"small": FEW}


def test_settings_are_part_of_the_identity(model: LoadedModel, checkpoint: Checkpoint) -> None:
    entries = [
        model.entry,
        model.entry.with_images("checkpoint"),
        model.entry.model_copy(update={"benchmarks": {}}),
        ModelEntry(name="tiny", source=model.entry.source, **FEW),
    ]
    loaded = [load(entry, CPU) for entry in entries]
    identities = [Run(one, MethodSpec("none"), RunOptions()).record.identity for one in loaded]
    assert len(set(identities)) == 4
    assert loaded[1].image_processor == {"class": loaded[1].image_processor["class"]}


def test_rows_of_changed_settings_are_refused_not_mixed(model: LoadedModel, tmp_path: Path) -> None:
    record, store = evaluate(model, tmp_path), Store(tmp_path)
    old = record.datasets["small"].model_copy(update={"images": {"enlarge_first": 2}})
    store.write(record.model_copy(update={"datasets": {"small": old}}))
    with pytest.raises(UserError, match=r"small: the image settings changed since .*enlarge_first"):
        evaluate(model, tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shared", [None, FeatureCache(10**9)])
def test_a_file_of_two_benchmarks_is_encoded_for_each(
    model: LoadedModel, workers: int, shared: FeatureCache | None
) -> None:
    parts = [Part(image=Image.new("RGB", (96, 96))), Part(text="what")]
    requests = [Request(str(i), lambda: parts, "what", max_new_tokens=1) for i in range(3)]
    with Runner(model, MethodSpec("none").pruner(), 2, workers=workers, shared=shared) as runner:
        for name, tokens in (("small", 9), ("small-broken", 144), ("small", 9)):
            rows = [row for batch in runner.predictions(requests, "one file", name) for row in batch]
            assert [row.initial for row in rows] == [tokens] * 3


def test_images_of_a_row_are_shared_features_as_in_the_row(checkpoint: Checkpoint) -> None:
    """The first is enlarged and each has its part of the tiles, also where every image is encoded by itself."""
    entry = ModelEntry(name="t", source=str(checkpoint("internvl")), image_total={"max_patches": 4}, enlarge_first=2)
    model = load(entry, CPU)
    wide = [Part(image=Image.effect_noise((300, 90), 50 + i).convert("RGB")) for i in range(2)]
    row = Request("0", lambda: [*wide, Part(text="what")], "what", max_new_tokens=3)
    found = []
    for shared in (None, FeatureCache(10**9)):
        with Runner(model, MethodSpec("none").pruner(), 1, shared=shared) as runner:
            [[answer]] = runner.predictions([row])
            found.append((answer.initial, answer.prediction))
    assert found[0] == found[1]
    assert found[0][0] == 2 * 3 * 144  # two tiles and a thumbnail each


def test_a_folder_runs_with_the_settings_of_an_entry(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--data-dir", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    common = ["--model", str(checkpoint("llava")), "--method", "none", "--data", "mini-pope", "--limit", "1", *output]
    remark = "runs with prompts=benchmark, images=checkpoint; models of its family in configs/models.yaml"
    assert main(common) == 0
    told = capsys.readouterr()
    assert remark in " ".join(told.err.split())
    assert remark in " ".join(told.out.split())
    assert main([*common, "--like", "llava-1.5-7b"]) == 0
    found = {record.model.like: record for record in Store(tmp_path / "out").records()}
    assert set(found) == {None, "llava-1.5-7b"}
    assert found["llava-1.5-7b"].setup.processor["class"] == "LlavaImageProcessor"
    assert [found[like].setup.images for like in (None, "llava-1.5-7b")] == ["checkpoint", "paper"]
    assert remark in " ".join(leaderboard(list(found.values())).notes)
    settings = [row["settings"] for row in csv.DictReader((tmp_path / "out" / "leaderboard.csv").open())]
    assert sorted("prompts=family images=paper like=llava-1.5-7b" in text for text in settings) == [False, True]
    capsys.readouterr()
    assert main([*common, "--images", "paper"]) == 2
    assert "no paper's image settings are known" in capsys.readouterr().err
    assert main([*common, "--like", "internvl3-8b"]) == 2
    assert "family 'llava', but internvl3-8b in configs/models.yaml" in capsys.readouterr().err


def test_a_plan_holds_settings_of_both_spellings_apart(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = str(checkpoint("llava"))
    cells = [RunSpec(name, MethodSpec("none"), ("mini-pope",), limit=1, like=like) for like in (None, "llava-1.5-7b")]
    items = Sweep(RunSettings(tmp_path / "out", tmp_path / "data", device="cpu")).plan(cells)
    assert [item.setup and item.setup.images for item in items] == ["checkpoint", "paper"]
    assert [bool(item.remarks) for item in items] == [True, False]
    file = tmp_path / "s.yaml"
    file.write_text(f"title: t\nruns:\n  - {{model: {name}, like: llava-1.5-7b, method: none, data: mini-pope}}\n")
    assert main(["sweep", str(file), "--dry-run", "--data-dir", str(tmp_path / "data")]) == 0
    assert "like=llava-1.5-7b" in capsys.readouterr().out


def test_a_run_unlike_the_papers_harness_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = MethodSpec("none")
    method = spec.record(spec.pruner(), attends=[True] * 28)
    fields = {"paper": {"prompts": "family", "images": "paper"}, "own": {}, "both": {"prompts": "family"}}
    runs = {
        name: records.run(method, {"pope": records.dataset([1.0] * 4)}, 1.0, model="qwen2.5-vl-7b", **setup)
        for name, setup in fields.items()
    }
    for name, text in (
        ("paper", ""),
        ("own", "ours has prompts=benchmark, the paper's harness family; ours has images=checkpoint"),
        ("both", "ours has images=checkpoint, the paper's harness paper"),
    ):
        stored = StoredRuns([runs[name]])
        source = stored.find("qwen2.5-vl-7b", spec, "pope")
        assert source is not None
        assert text in stored.unlike_paper(source.group, "qwen2.5-vl-7b")
        assert bool(text) == bool(stored.unlike_paper(source.group, "qwen2.5-vl-7b"))
    source = StoredRuns(runs.values()).find("qwen2.5-vl-7b", spec, "pope")
    assert source is not None
    assert source.group.setup.images == "paper"
    Store(tmp_path).write(runs["own"])
    table = tmp_path / "t.csv"
    arguments = ["compare", "--paper", "uniprunebench-table3", "--output", str(tmp_path), "--csv", str(table)]
    assert main(arguments) == 0
    assert "ours has prompts=benchmark, the paper's harness family" in " ".join(capsys.readouterr().out.split())
    assert any("images=checkpoint" in line["unlike"] for line in csv.DictReader(table.open()))
