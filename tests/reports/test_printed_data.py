"""Printed numbers: means recomputed, doubts marked, copies traced, files checked."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.printed_means import half, recomputed
from uniprune.errors import UserError
from uniprune.modeling.catalog import catalog
from uniprune.registry import BENCHMARKS, METHODS
from uniprune.reports.printed.data import AGGREGATES, FOLDER, UNPRUNED, Literature, read_literature

ROW_GIVES = re.compile(r"its row gives ([\d.]+) ")
NO_ROW = {"2603.01236", "2603.09480", "2412.04467", "2506.10967", "2606.24156"}
"""Sources with means whose row or rule is not known."""
DOUBTS = {
    "the row is MMTok Table 20 (arXiv 2508.18264) at 20 %, another retention and another vanilla": 18,
    "the row is MMTok Table 20 (arXiv 2508.18264) at 10 %, another retention and another vanilla": 18,
    "the eight scores at 25 % and at 20 % are the same: one row is probably a copy of the other": 16,
    "perception only, set against a vanilla of 1862 that is perception and cognition": 6,
    "holds the values that other papers print under SQA and VQAv2 (columns shifted by one)": 4,
    "these are the 64-token values of the same table": 4,
    "the row agrees with PruMerge+ elsewhere, not with PruMerge": 20,
}
"""Doubts about several numbers -> how many."""


@pytest.fixture(scope="module")
def literature() -> Literature:
    return read_literature()


def test_printed_means_follow_from_their_rows_or_are_errata(literature: Literature) -> None:
    found = [one for one in recomputed(literature) if "gaps in the text" not in one.printed.remark]
    assert len(found) > 1200
    for one in found:
        given = ROW_GIVES.match(one.printed.suspect)
        if given is None:
            assert one.agrees, one
        else:
            assert float(given[1]) == pytest.approx(one.value, abs=0.006), one
            assert abs(one.value - one.printed.number) > half(one.printed), one
            assert one.agrees == ("rounding in the row could explain it" in one.printed.suspect), one


def test_every_erratum_of_a_mean_and_every_other_mean_is_recomputed(literature: Literature) -> None:
    known = {(one.printed.row, one.printed.benchmark) for one in recomputed(literature)}
    left = [v for v in literature.values if v.benchmark in AGGREGATES and (v.row, v.benchmark) not in known]
    assert {value.source for value in left} == NO_ROW
    assert not [value for value in left if value.suspect]
    assert sum("gaps in the text" in value.remark for value in literature.values) == 9


def test_suspect_numbers_keep_their_reasons(literature: Literature) -> None:
    doubts = Counter(value.suspect for value in literature.values if value.suspect)
    assert {reason: count for reason, count in doubts.items() if count > 2} == DOUBTS
    assert sum(bool(ROW_GIVES.match(reason)) for reason in doubts.elements()) == 37


def test_rows_that_are_the_same_at_two_budgets_are_suspect(literature: Literature) -> None:
    """A row printed at two budgets is a copy of itself: no method scores the same to the digit on five benchmarks."""
    rows: dict[tuple[object, ...], list[tuple[str, ...]]] = {}
    for key, row in literature.rows.items():
        scores = [(name, value.value) for name, value in row.items() if name not in AGGREGATES]
        if len(scores) >= 5 and key[5] != UNPRUNED:
            rows.setdefault((*key[:4], key[5], *scores), []).append(key)
    twice = [key for keys in rows.values() for key in keys if len(keys) > 1]
    assert {(key[0], key[5]) for key in twice} == {("2602.08024", "FastVID")}
    assert all(v.suspect for key in twice for v in literature.rows[key].values() if v.benchmark not in AGGREGATES)


def test_copies_name_the_first_that_prints_the_number(literature: Literature) -> None:
    printed: dict[tuple[str, ...], list[tuple[float, bool]]] = {}
    for value in literature.values:
        key = (value.source, value.model, value.budget, value.method, value.benchmark, value.unit)
        printed.setdefault(key, []).append((value.number, value.origin == "copy"))
    copies = [value for value in literature.values if value.origin == "copy"]
    assert len(copies) > 2000
    for value in copies:
        first = (value.copy_of, value.model, value.budget, value.method, value.benchmark, value.unit)
        assert (value.number, False) in printed[first], value
        assert value.copy_of != value.source
        assert value.copy_of < value.source or not value.source[0].isdigit(), value


def test_baselines_that_papers_ran_themselves_are_no_copies(literature: Literature) -> None:
    reruns = {value.source for value in literature.values if value.origin == "rerun"}
    assert {"2606.01711", "2508.18264", "2508.00553", "2510.07143", "2608.30263"} <= reruns
    assert not [v for v in literature.values if "rerun" in v.method and v.origin != "rerun"]


def test_units_and_scales(literature: Literature) -> None:
    units: dict[str, set[str]] = {}
    for value in literature.values:
        units.setdefault(value.benchmark, set()).add(value.unit)
    assert units["MME"] - {"%"} == {"points (perception + cognition)"}
    assert units["MME-P"] == {"points (perception)"}
    assert units["OCRBench"] == {"%", "points of 1000"}
    for value in literature.values:
        if value.unit.startswith("points (") and not value.suspect:
            assert value.number > 500, value  # a percentage would be below
        base = literature.unpruned(value)
        if base and not value.suspect and value.benchmark not in AGGREGATES and value.table != "vtc-groupB":
            assert value.number < 1.35 * base.number, (value, base)


def test_numbers_with_splits_are_not_mixed(literature: Literature) -> None:
    """VizWiz test and validation differ by four points in the un-pruned model."""
    bases = {
        split: {v.number for v in literature.values if (v.benchmark, v.split, v.method, v.table) == want}
        for split in ("test", "validation")
        for want in [("VizWiz", split, UNPRUNED, "llava15")]
    }
    assert max(bases["test"]) < min(bases["validation"])


def test_our_names_are_names_of_methods_benchmarks_and_models(literature: Literature) -> None:
    known = {"method": METHODS.names(), "benchmark": BENCHMARKS.names(), "model": catalog()}
    for (kind, printed), name in literature.names.items():
        parts = [
            part
            for ours in name.ours.split()
            for part in ([ours] if ours in known[kind] else re.split(r"\b\+\b", ours))
        ]
        assert {*parts} <= {*known[kind]}, (printed, parts)
        assert not name.like or (kind, name.like) in literature.names, printed


EDITS = [
    ("values.csv", "origin,copy_of", "origin,copied", "has the columns"),
    ("values.csv", ",own,,", ",mine,,", "origin is 'mine'"),
    ("values.csv", ",own,,", ",own,2502.11494,", "copies, and only they, name one"),
    ("values.csv", "POPE,,85.9,%,2410.04417", "POPE,,8590,%,2410.04417", "is outside 0 to 100"),
    ("values.csv", "POPE,,85.9,%,2410.04417", "POPE,,85;9,%,2410.04417", "is not a number"),
    ("values.csv", "POPE,,85.9,%,2410.04417", "POPE,,85.9,percent,2410.04417", "unit is 'percent'"),
    ("values.csv", "POPE,,85.9,%,2410.04417", "POPPE,,85.9,%,2410.04417", "no benchmark 'POPPE'"),
    ("values.csv", "MMB,,64.6,%,2410.04417", "POPE,,64.6,%,2410.04417", "POPE twice"),
    ("values.csv", ",2410.04417,Table 1,", ",2410.04417,Table 9,", "tables.csv has no 2410.04417 Table 9"),
    ("sources.csv", "2410.04417,", "2410.04418,", "sources.csv lacks '2410.04417'"),
    ("tables.csv", "mean of ratios", "some mean", "average is 'some mean'"),
]


@pytest.mark.parametrize(("name", "old", "new", "message"), EDITS)
def test_what_files_must_not_have_is_refused_by_name(
    name: str, old: str, new: str, message: str, tmp_path: Path
) -> None:
    shutil.copytree(FOLDER, tmp_path / "printed")
    path = tmp_path / "printed" / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)):
        read_literature(tmp_path / "printed")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"values\.csv cannot be read"):
        read_literature(tmp_path)
