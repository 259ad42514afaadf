"""Rows that are in no score are counted where papers' numbers and findings are shown."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import records
from uniprune.cli.main import main
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.reports.papers.compare import compare
from uniprune.reports.papers.line import Printed
from uniprune.reports.papers.runs import StoredRuns
from uniprune.results.records import RunRecord
from uniprune.results.store import Store

pytestmark = pytest.mark.end_to_end


def run(spec: MethodSpec, *left_out: str) -> RunRecord:
    """A run on twenty rows of a benchmark without some of them."""
    asked = [str(i) for i in range(20) if str(i) not in left_out]
    right = np.random.default_rng(0).random(20) < 0.8
    scored = records.score({index: float(right[int(index)]) for index in asked})
    faulty = dict.fromkeys(left_out, "refused")
    entry = records.dataset(scored, faulty=faulty).model_copy(update={"rows": 20, "left_out": len(left_out)})
    method = spec.record(spec.pruner(), attends=[True] * 6)
    return records.run(method, {"mini-mme": entry}, spec.pruner().ratio, spec.seed, "tiny-llava")


@pytest.mark.parametrize(
    ("baseline", "relative", "note"),
    [
        (("3", "4"), 100.0, "could not be asked: mini-mme 2 of 20 rows (*.record.json)"),
        ((), None, "mini-mme: different rows are left out ("),
    ],
    ids=["same rows", "other rows"],
)
def test_papers_and_findings_count_them(
    baseline: tuple[str, ...], relative: float | None, note: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "results")
    store.write(run(MethodSpec("none"), *baseline))
    store.write(run(MethodSpec("random-pre", 0.333), "3", "4"))
    output, table = ["--output", str(store.root)], tmp_path / "table.csv"
    assert main(["compare", "--paper", "uniprunebench-table1", "--mini", *output, "--csv", str(table)]) == 0
    printed = capsys.readouterr().out
    lines = [line for line in csv.DictReader(table.open()) if line["method"] == "random-pre" and line["ours"]]
    assert {line["quantity"] for line in lines} >= {"score"}
    assert {(line["rows"], line["left out"]) for line in lines} == {("18", "2")}
    texts = dict.fromkeys(("settings", "column", "spread", "erratum", "note"), "")
    asked = Printed(row="r", model="tiny-llava", method="random-pre", ratio=0.333, benchmark="mini-mme",
                    quantity="relative %", value="80", **texts)  # fmt: skip
    [one] = compare([asked], StoredRuns(store.records()))
    assert (one.ours and one.ours.value) == relative
    assert main(["analyse", *output]) == 0
    for text in (printed, capsys.readouterr().out):
        assert "2 of 20 rows" in text
    assert note in printed
