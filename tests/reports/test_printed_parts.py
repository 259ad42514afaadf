"""Printed numbers about the rows that a resized image answers wrong, or right, and ours on the same kind of rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers import records
from uniprune.errors import UserError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.reports.papers.compare import Compared, compare
from uniprune.reports.papers.literature import printed_lines
from uniprune.reports.papers.runs import StoredRuns
from uniprune.reports.papers.tables import read_table
from uniprune.results.records import RunRecord

HERE = Path("table.yaml")
GROUP_A = {
    "source": "2510.07143", "place": "Table 2", "table": "vtc-groupA", "printed_model": "qwen2-vl-7b",
    "model": "tiny-qwen2.5-vl", "ratios": {"25 %": 0.25, "11.11 %": 0.11111, "6.25 %": 0.0625},
    "columns": dict.fromkeys(("GQA", "MMB", "MMB-CN", "POPE", "MMStar", "OCRBench", "ChartQA"))
    | {"MME": "mini-mme"},
    "part": {"rows": "hard", "by": "resize form=vtc-bench"},
    "methods": {"VisionZip": None, "PruMerge+": None, "DART": None}
    | {"FastV": {"method": "fastv", "settings": "layer=2"}},
}  # fmt: skip
SMALL = np.arange(60) < 40
"""Rows that are right with the resized image."""
OURS = np.arange(60) % 4 > 0


def stored(spec: MethodSpec, right: np.ndarray, tokens: float) -> RunRecord:
    entry = records.dataset(records.score(right.astype(float)), rows=60, ledger=records.tokens(tokens))
    spec = spec.normalised()
    record = spec.record(spec.pruner(), attends=[True] * 6)
    return records.run(record, {"mini-mme": entry}, spec.ratio, 0, "tiny-qwen2.5-vl")


def shown(rows: str, tokens: float = 58.7, right: np.ndarray = OURS) -> Compared:
    """Compare FastV at 11.11 % with runs of FastV, and of a resized image at the same ratio."""
    resize = MethodSpec("resize", 0.11111, settings={"form": "vtc-bench"})
    runs = [
        stored(MethodSpec("fastv", 0.11111, settings={"layer": "2"}), right, tokens),
        stored(resize, SMALL, 16.0),
        stored(MethodSpec("resize", 0.11111), ~SMALL, 58.7),  # another form, of the method's budget
        stored(MethodSpec("none", 1.0), np.arange(60) < 50, 144.0),
    ]
    lines = printed_lines({**GROUP_A, "part": {"rows": rows, "by": "resize form=vtc-bench"}}, HERE)
    found = {(one.line.row, one.line.column): one for one in compare(lines, StoredRuns(runs))}
    return found["FastV at 11.11 %", "MME"]


@pytest.mark.parametrize(("rows", "of"), [("hard", range(40, 60)), ("easy", range(40)), ("hard known", range(40, 50))])
def test_ours_is_the_accuracy_on_the_rows_by_the_resized_run_of_the_same_ratio(rows: str, of: range) -> None:
    one = shown(rows)
    assert one.ours is not None
    assert one.ours.value == pytest.approx(100 * np.mean(OURS[list(of)]))
    assert one.ours.interval is not None
    assert one.ours.interval[0] < one.ours.value < one.ours.interval[1]
    assert one.rows == len(of)
    assert one.unlike == "the resized run that parts the rows has another measured budget"
    assert one.difference == pytest.approx(one.ours.value - float(one.line.value))
    assert shown(rows, tokens=16.4).unlike == ""


def test_without_the_resized_run_or_its_questions_there_is_nothing() -> None:
    fastv = stored(MethodSpec("fastv", 0.11111, settings={"layer": "2"}), OURS, 16.0)
    other = stored(MethodSpec("resize", 0.11111, settings={"form": "vtc-bench"}), SMALL, 16.0)
    entry = other.datasets["mini-mme"].model_copy(update={"prompts": "others"})
    lines = printed_lines(GROUP_A, HERE)
    for runs in ([fastv], [other], [fastv, other.model_copy(update={"datasets": {"mini-mme": entry}})]):
        assert not any(one.ours for one in compare(lines, StoredRuns(runs)))
    assert any(one.ours for one in compare(lines, StoredRuns([fastv, other])))


def test_the_groups_of_vtc_bench_have_a_column_of_ours() -> None:
    for name, rows in (("groupa", "hard"), ("groupb", "easy")):
        table = read_table(f"vtc-bench-table2-{name}")
        assert {line.part for line in table.lines} == {rows}
        assert all(line.scale == 1 for line in table.lines if line.quantity == "score")
        parting = {line.parting().name for line in table.lines}
        assert parting == {"resize"}


def test_a_part_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match=r"another form: (.|\n)*part\.rows"):
        printed_lines({**GROUP_A, "part": {"rows": "odd", "by": "resize"}}, HERE)
