"""Findings 9 and 10: the information horizon and hard rows, on records made of numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from tests.helpers.records import dataset, run, tokens
from uniprune.cli.main import main
from uniprune.reports.findings import Finding, Study
from uniprune.reports.findings.hard import hard_rows
from uniprune.reports.findings.horizon import horizon
from uniprune.results.records import MethodRecord, RunRecord
from uniprune.results.store import Store

ROWS = 2000


def at(layer: int, method: str, right: NDArray[np.bool_], average: float = 16.0, seed: int = 0) -> RunRecord:
    record = MethodRecord(
        name=method, kind="intra-llm", passed={f"{method}.layer": layer}, resolved=[{"layer": layer, "seed": seed}],
        stages=[(layer, 0.5)], code="c",
    )  # fmt: skip
    found = run(record, {"x": dataset(list(right * 1.0), ledger=tokens(average))}, seed=seed)
    return found.model_copy(update={"random": (method == "random-intra",)})


def ladder(gaps: dict[int, float], rows: int = ROWS, seed: int = 0, average: float = 16.0) -> list[RunRecord]:
    """A method that is better than random choice by so many points at each layer, with its own luck on some rows."""
    rng, found = np.random.default_rng(seed), []
    for layer, gap in gaps.items():
        base = rng.random(rows) < 0.7
        other = np.where(rng.random(rows) < 0.1, rng.random(rows) < 0.7, base)
        luck = rng.random(rows)
        better = np.where(luck < abs(gap) / 100, gap > 0, other)
        base = np.where(luck < abs(gap) / 100, gap <= 0, base)
        found += [at(layer, "fastv", better, average), at(layer, "random-intra", base, average)]
    return found


def test_the_first_layer_from_which_random_equals_the_method() -> None:
    finding = horizon(Study(ladder({2: 20.0, 8: 8.0, 16: 0.0, 20: 0.0})))
    assert finding.verdict == "1 of 1 are equal to random choice, within 2 points, from a layer on"
    signs = {line.label: line.sign for line in finding.lines}
    assert signs == {
        f"fastv − random-intra (1 seed), m, ratio 0.5, layer {layer}, 16.0 tokens": sign
        for layer, sign in ((2, 1), (8, 1), (16, 0), (20, 0))
    }
    [detail] = finding.details
    start = "fastv − random-intra (1 seed), m, ratio 0.5: equal within 2 points from layer 16 on; no difference shown "
    assert detail.startswith(start + "from layer 16 on, where 2000 rows show 1.")
    assert detail.endswith("points in 80 % of cases")


def test_no_difference_is_not_equality() -> None:
    """Sixty rows show neither: the verdict says what they could have shown."""
    finding = horizon(Study(ladder({2: 0.0, 8: 0.0}, rows=60)))
    assert finding.verdict.startswith("0 of 1 are equal")
    [detail] = finding.details
    assert (
        "not shown to be equal within 2 points at layer 8, the deepest; no difference shown from layer 2 on" in detail
    )
    assert "where 60 rows show " in detail
    assert "equal within 30 points from layer 2 on" in horizon(Study(ladder({2: 0, 8: 0}, 60), 30)).details[0]


def test_a_horizon_reaches_to_the_deepest_layer() -> None:
    """Equal in the middle only is none."""
    [detail] = horizon(Study(ladder({2: 20.0, 8: 0.0, 16: 12.0}))).details
    assert (
        "not shown to be equal within 2 points at layer 16, the deepest; layer 16, the deepest, still differs" in detail
    )


def test_only_pairs_of_equal_budget_are_tested_and_others_are_named() -> None:
    records = ladder({2: 0.0, 8: 0.0})
    right = np.arange(ROWS) % 3 > 0
    apart = [at(12, "fastv", right, 40.0), at(12, "random-intra", right, 16.0)]
    details = horizon(Study([*records, *apart])).details
    assert len(horizon(Study([*records, *apart])).lines) == 2
    assert details[-1].endswith(": not tested at layer 12, as the budgets of the two differ there")
    more = ladder({16: 0.0}, seed=1, average=40.0)
    assert any(
        "budgets differ between layers (16.0 to 40.0" in one for one in horizon(Study([*records, *more])).details
    )


def test_too_few_images_and_too_few_layers_have_no_verdict() -> None:
    assert horizon(Study(ladder({2: 0.0, 8: 0.0}, rows=4))).verdict.startswith("no verdict: too few images")
    one = ladder({2: 0.0})
    for layers, proposed in ((28, (2, 8, 16)), (12, (2, 8)), (6, (1, 3, 5)), (2, (1,))):
        shallow = [each.model_copy(update={"model": each.model.model_copy(update={"layers": layers})}) for each in one]
        first, *others = (f"--layer {layer}" for layer in proposed)
        again = ", and again with " + " and with ".join(others) if others else ""
        assert horizon(Study(shallow)).missing.endswith(f" with {first}{again}")


@pytest.mark.exhaustive
def test_simulated_horizons() -> None:
    """At layers 2 and 8 the method is better by just the margin: that a horizon includes them is false."""
    trials, false, found = 100, 0, 0
    for trial in range(trials):
        [detail] = horizon(Study(ladder({2: 4.0, 8: 4.0, 16: 0.0}, 800, trial), 4.0)).details
        false += any(f"from layer {layer} on;" in detail.partition("no difference")[0] for layer in (2, 8))
        found += "equal within 4 points from layer 16 on" in detail
    print(f"\nhorizon too early in {100 * false / trials:.1f} %, found in {100 * found / trials:.1f} %")
    assert false <= binom.ppf(0.999, trials, 0.05)
    assert found > 0.8 * trials


def parted() -> list[RunRecord]:
    """Two methods alike where the resized image is right; the first one better where it is wrong."""
    rng = np.random.default_rng(0)
    small = rng.random(600) < 0.6
    answers = {
        "a": np.where(small, rng.random(600) < 0.8, rng.random(600) < 0.7),
        "b": np.where(small, rng.random(600) < 0.8, rng.random(600) < 0.4),
    }
    resize = MethodRecord(name="resize", kind="input", passed={}, resolved=[{}], stages=[], code="c")
    entries = {name: dataset(list(right * 1.0), ledger=tokens(16)) for name, right in answers.items()}
    return [
        run("none", {"x": dataset([float(i > 9) for i in range(600)], ledger=tokens(144))}),
        run(resize, {"x": dataset(list(small * 1.0), ledger=tokens(16))}),
        *(run(name, {"x": entry}) for name, entry in entries.items()),
    ]


def shown(finding: Finding) -> dict[str, int]:
    return {line.label.partition(" (")[0]: line.sign for line in finding.lines if " a − b" in line.label}


def test_methods_are_compared_on_hard_rows_and_on_easy_ones() -> None:
    finding = hard_rows(Study(parted()))
    assert shown(finding) == {
        "hard rows of x": 1, "easy rows of x": 0, "hard known rows of x": 1, "easy known rows of x": 0
    }  # fmt: skip
    assert finding.verdict.startswith("pairs of methods that differ: 1 of 1 on hard rows, 0 of 1 on easy rows")
    assert [detail.partition(":")[0] for detail in finding.details] == ["x, m, a, ratio 0.5", "x, m, b, ratio 0.5"]
    assert all("] of 600 rows" not in detail and "hard known " in detail for detail in finding.details)
    assert not any("resize −" in line.label or "− resize" in line.label for line in finding.lines)
    whole = [one for one in parted() if one.setup.method.name != "none"]
    finding = hard_rows(Study([run("none", {"x": dataset([1.0] * 600, ledger=tokens(144))}), *whole]))
    assert shown(finding) == {"hard rows of x": 1, "easy rows of x": 0}  # known ones are the same rows
    assert all(detail.count(" rows (all known)") == 2 for detail in finding.details)
    alone = hard_rows(Study([one for one in parted() if one.setup.method.kind != "input"]))
    assert " none resize " in alone.missing


def test_analyse_prints_hard_rows_with_their_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for record in parted():
        Store(tmp_path).write(record)
    assert main(["analyse", "--output", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "Parted by m resize 0.5: x 2" in told
    assert "* " in told.partition("10. Methods differ where")[2]
