"""The findings on stored runs: what was planted is found, what was not is not, what is missing is named."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.helpers.records import tokens
from uniprune.cli.main import main
from uniprune.evaluation.dataset import Dataset
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.run import Run
from uniprune.modeling.loading import LoadedModel
from uniprune.registry import METHODS
from uniprune.reports.findings import FINDINGS, Finding, Study, pairs_csv
from uniprune.results.records import DatasetRecord, RunRecord
from uniprune.results.store import Store
from uniprune.utils.console import RunProgress

pytestmark = pytest.mark.end_to_end

Chance = Callable[[RunRecord, str], float]
"""Share of right answers of a run on an ability."""
ABILITIES = ("ocr", "instruction")
METHODS_RUN = ("random-pre", "divprune", "fastv", "divprune+fastv")


@pytest.fixture(scope="module")
def runs(loaded: LoadedModel, small: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    """Real records of one row each: every method at two ratios, random choice under five seeds."""
    store = Store(tmp_path_factory.mktemp("runs"))
    choices = [MethodSpec("none")]
    for ratio in (0.2, 0.5):
        choices += [MethodSpec(name, ratio) for name in METHODS_RUN]
        choices += [MethodSpec("random-pre", ratio, seed=seed) for seed in range(1, 5)]
    for choice in choices:
        with RunProgress(1, Console(quiet=True)) as progress:
            Run(loaded, choice, RunOptions(limit=1)).evaluate([small], store, progress)
    return list(store.records())


def planted(runs: list[RunRecord], chance: Chance, items: int = 150, **model: object) -> list[RunRecord]:
    """The runs as if they had answered a benchmark per ability with the given chances; items are as hard in all."""
    found = []
    for run in runs:
        datasets: dict[str, DatasetRecord] = {}
        for n, ability in enumerate(ABILITIES):
            hard = np.random.default_rng(n).random(items)
            name = run.setup.method.name
            own = np.random.default_rng([n, run.setup.seed, int(100 * run.setup.ratio), *name.encode()])
            right = 0.8 * hard + 0.2 * own.random(items) < chance(run, ability)
            template = run.datasets["small"]
            assert template.score is not None
            score = template.score.model_copy(
                update={"value": 100 * right.mean(), "per_item": {str(i): float(r) for i, r in enumerate(right)}}
            )
            budget = tokens(64 * run.setup.ratio)
            changed = {"ability": ability, "score": score, "ledger": budget, "size": 0}
            datasets[ability] = template.model_copy(update=changed)
        changed = {"datasets": datasets, "model": run.model.model_copy(update=model)}
        setup = run.setup.model_copy(update={"weights": model["name"]} if model else {})
        found.append(run.model_copy(update=changed | {"setup": setup, "identity": setup.identity()}))
    return found


def examined(records: list[RunRecord]) -> dict[str, Finding]:
    study = Study(records)
    return {examine.__name__: examine(study) for examine in FINDINGS}


def told(run: RunRecord, ability: str) -> float:
    """Random and hybrid worst, DivPrune best; reading falls three times as far; half as far at the larger ratio."""
    falls = {"none": 0.0, "random-pre": 0.3, "divprune": 0.1, "fastv": 0.2, "divprune+fastv": 0.3}
    fall = falls[run.setup.method.name] * (1 if ability == "ocr" else 1 / 3)
    return 0.9 - fall * (1 if run.setup.ratio < 0.5 else 0.5)


def test_planted_effects_are_found(runs: list[RunRecord]) -> None:
    found = examined(planted(runs, told))
    assert found["random_baseline"].verdict.startswith("does not hold: 0 of 6 for it, 4 against")
    assert "5 seeds" in found["random_baseline"].lines[0].label
    assert found["no_winner"].verdict.startswith("undecided: never significantly beaten are divprune ")
    assert found["abilities"].verdict.startswith("ocr falls most, significantly more than 1 of 1 others")
    steps = {line.label: line.sign for line in found["ratios"].lines}
    assert [steps[f"{name}: 0.5 − 0.2, tiny"] for name in METHODS_RUN] == [1] * 4
    assert steps["% of variance due to the ratio − due to the method, tiny"] == -1
    assert found["stages"].verdict.startswith("holds: 4 of 4")
    signs = {line.label: line.sign for line in found["kinds"].lines}
    assert signs["hybrid − pre-llm, tiny, ratio 0.2, limit 1"] == -1
    assert signs["pre-llm − intra-llm, tiny, ratio 0.2, limit 1"] == 1
    for finding in found.values():
        tests = [line.test for line in finding.lines]
        assert all(test and test.low <= test.difference <= test.high for test in tests)


def test_where_nothing_differs_nothing_is_claimed(runs: list[RunRecord]) -> None:
    found = examined(planted(runs, lambda run, ability: 0.7))
    for name in ("random_baseline", "kinds", "stages"):
        assert found[name].verdict.startswith("undecided: 0 of"), found[name]
    assert found["abilities"].verdict.partition(", ")[2].startswith("significantly more than 0 of 1")
    assert "never significantly beaten are" in found["no_winner"].verdict


def test_size_and_agreement_across_models(runs: list[RunRecord]) -> None:
    """The large model loses a third of what the small one does; methods rank alike."""
    small = planted(runs, told, name="small", parameters=10**6)
    large = planted(runs, lambda run, a: 0.9 - (0.9 - told(run, a)) / 3, name="large", parameters=10**7)
    found = examined(small + large)
    assert found["sizes"].verdict.startswith("holds: ")
    assert all(line.label.startswith("large − small, ") for line in found["sizes"].lines)
    assert found["across_models"].verdict.startswith("holds: ")
    other = planted(runs, lambda run, a: 1.5 - told(run, a), name="contrary", parameters=10**7)
    assert examined(small + other)["across_models"].verdict.startswith("does not hold")


def test_what_is_missing_is_named_with_a_command_that_exists(runs: list[RunRecord]) -> None:
    alone = [run for run in planted(runs, told) if run.setup.method.name == "divprune"][:1]
    found = examined(alone)
    for finding in found.values():
        assert finding.missing.startswith("not enough data: run `python run.py --model tiny --method "), finding
        words = finding.missing.split("--method ")[1].split(" --ratio")[0].split()
        assert words, finding
        for word in words:
            MethodSpec(word).pruner()
    assert "--seed 0 1 2 3 4" in found["random_baseline"].missing
    assert any(METHODS.get(name).random for name in found["random_baseline"].missing.split() if name in METHODS.names())


def test_every_pair_on_every_benchmark(runs: list[RunRecord]) -> None:
    lines = list(csv.DictReader(pairs_csv(Study(planted(runs, told))).splitlines()))
    assert len(lines) == 2 * 6 * 2  # ratios, pairs of four methods, benchmarks
    assert {line["test"] for line in lines} == {"paired bootstrap"}
    assert all(float(line["p"]) <= float(line["p corrected"]) for line in lines)
    for line in lines:  # the interval and p are of one procedure
        assert (float(line["p"]) < 0.05) is (float(line["low"]) * float(line["high"]) > 0), line


def with_images(record: RunRecord, images: int) -> RunRecord:
    """The run as if its items were about so many images."""
    datasets = {}
    for name, entry in record.datasets.items():
        assert entry.score is not None
        clusters = {item: str(int(item) % images) for item in entry.score.per_item}
        datasets[name] = entry.model_copy(update={"score": entry.score.model_copy(update={"clusters": clusters})})
    return record.model_copy(update={"datasets": datasets})


def test_too_few_images_give_no_verdict(
    runs: list[RunRecord], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "results")
    for run in planted(runs, told):
        store.write(with_images(run, 2))
    records = list(store.records())
    found = examined(records)
    for name in ("random_baseline", "no_winner", "kinds", "abilities", "ratios", "stages"):
        assert found[name].verdict == "no verdict: too few images: 2 of 5 a benchmark or category"
        assert all((line.test, line.sign) == (None, 0) for line in found[name].lines)
    [line] = list(csv.DictReader(pairs_csv(Study(records)).splitlines()))[:1]
    assert (line["test"], line["low"], line["p"], line["p corrected"]) == ("too few images: 2 of 5", "", "", "")
    assert main(["analyse", "--output", str(store.root)]) == 0
    out = capsys.readouterr().out
    assert "not tested, too few images: 2 of 5  random-pre (5 seeds) − divprune" in out
    assert "Too few images (the fewest of any run): instruction 2, ocr 2." in out
    assert "[" not in out.replace("[95", "")


def test_a_mean_over_methods_is_as_sure_as_its_images(runs: list[RunRecord]) -> None:
    records = [with_images(run, 6) for run in planted(runs, told)]
    [line] = [one for one in examined(records)["kinds"].lines if one.label.startswith("pre-llm − intra-llm")][:1]
    assert all(source.freedom == 5 for source in line.difference.rows.values())
    assert set(line.difference.rows) == {*ABILITIES}


def test_methods_of_other_budgets_are_not_tested_against_each_other(
    runs: list[RunRecord], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At one ratio, FastV keeps all tokens in its first layers."""
    store, records = Store(tmp_path / "results"), []
    for run in planted(runs, told):
        more = 40.0 if "fastv" in run.setup.method.name else 0.0
        datasets = {
            name: entry.model_copy(update={"ledger": tokens(64 * run.setup.ratio + more)})
            for name, entry in run.datasets.items()
        }
        records.append(run.model_copy(update={"datasets": datasets}))
        store.write(records[-1])
    found = examined(records)
    pairs = {(line["method"], line["other"]) for line in csv.DictReader(pairs_csv(Study(records)).splitlines())}
    assert {frozenset(pair) for pair in pairs} == {
        frozenset({"random-pre", "divprune"}), frozenset({"fastv", "divprune+fastv"})
    }  # fmt: skip
    beaten = {line.label.split(",")[0] for line in found["random_baseline"].lines}
    assert beaten == {"random-pre (5 seeds) − divprune"}
    assert {line.label.split(",")[0] for line in found["stages"].lines} == {"fastv − divprune+fastv"}
    assert [line.label.split(",")[0] for line in found["kinds"].lines] == ["hybrid − intra-llm"] * 2
    assert main(["analyse", "--output", str(store.root)]) == 0
    out = capsys.readouterr().out
    assert "tiny, ratio 0.2: ranked and tested apart, because their visual tokens per layer differ by more" in out
    alone = [run for run in records if run.setup.method.name in ("divprune", "fastv")]
    assert "--protocol average" in examined(alone)["no_winner"].missing


def test_the_command_prints_every_finding_and_writes_the_pairs(
    runs: list[RunRecord], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "results")
    for run in planted(runs, told):
        store.write(run)
    output = ["--output", str(store.root)]
    assert main(["analyse", *output, "--lines", "2", "--pairs", str(tmp_path / "pairs.csv")]) == 0
    out = capsys.readouterr().out
    assert [line[:2] for line in out.splitlines() if line[:1].isdigit()] == [f"{n}." for n in range(1, 10)] + ["10"]
    assert "more (--lines)" in out
    assert (tmp_path / "pairs.csv").read_text().startswith("model,ratio,protocol,benchmark,method,other,")
    assert main(["analyse", "--output", str(tmp_path / "none")]) == 2
    assert "--output names their folder" in capsys.readouterr().err


def test_findings_are_plain_data(runs: list[RunRecord]) -> None:
    for finding in examined(planted(runs, told)).values():
        assert dataclasses.asdict(finding)["claim"] == finding.claim
