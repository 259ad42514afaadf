"""Tables whose numbers are in configs/printed/: every number, mark and mean, and what of ours is set beside it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import records
from tests.helpers.paper_tables import PRINTED
from uniprune.errors import UserError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.registry import BENCHMARKS
from uniprune.reports.papers.compare import Compared, compare, made_from, parts_of
from uniprune.reports.papers.line import Printed
from uniprune.reports.papers.literature import literature, printed_lines
from uniprune.reports.papers.measures import MEANS
from uniprune.reports.papers.report import without_ours
from uniprune.reports.papers.runs import StoredRuns
from uniprune.reports.papers.tables import PaperTable, read_table
from uniprune.results.records import RunRecord

HERE = Path("table.yaml")
FASTV = {
    "source": "2510.02912", "place": "Table 6", "table": "qwen25vl", "printed_model": "qwen2.5-vl-7b",
    "model": "tiny-qwen2.5-vl", "ratios": {"100 %": 1, "33.3 %": 0.333, "22.2 %": 0.222, "11.1 %": 0.111},
    "columns": {"MME": "mini-mme", "POPE": "mini-pope", "MMB": None, "SQA": "mini-pope", "TextVQA": "mini-pope"},
    "methods": {
        "vanilla": "none", "FastV": {"method": "fastv", "protocol": "average", "only": ["33.3 %"]}, "HoloV": None,
    },
}  # fmt: skip


@cache
def sources() -> list[tuple[PaperTable, dict[str, str]]]:
    tables = [read_table(name) for name in PRINTED]
    return [(table, table.sweep.printed) for table in tables if table.sweep.printed]


def test_the_fields_tables_are_there() -> None:
    papers = {name.rpartition("-")[0] for name in PRINTED}
    assert papers == {
        *("sparsevlm", "pyramiddrop", "dart", "holov", "hiprune", "mmtok", "v2drop", "transprune", "restore"),
        *("priortr", "tops", "pio-fvlm", "idpruner", "vtc-bench", "vtc-bench-table2", "fastvid", "vidcom2"),
        *("vidcom2-qwen3", "flashvid", "eadp", "occamtoken"),
    }


def test_every_number_and_mark_of_a_table_is_in_it_once() -> None:
    for table, block in sources():
        key = (block["source"], block["place"], block["table"], block["printed_model"])
        values = [value for value in literature().values if value.row[:4] == key]
        assert [line.value for line in table.lines] == [value.value for value in values]
        assert [line.erratum for line in table.lines] == [f"suspect: {v.suspect}" * bool(v.suspect) for v in values]
        keys = {(line.place, line.column) for line in table.lines}
        assert len(keys) == len(values), table.name


def test_lines_are_well_formed() -> None:
    for table, _ in sources():
        for line in table.lines:
            assert not line.benchmark or line.benchmark in BENCHMARKS.names(), line
            assert not (line.benchmark and line.quantity in MEANS), line
            assert 0 <= line.ratio <= 1, line
            if line.method:
                assert (line.method == "none") is (line.ratio == 1), line
                line.choice().pruner()


def half(value: str) -> float:
    return 0.5 * 10 ** -len(value.partition(".")[2])


def test_means_that_we_set_ours_beside_follow_from_their_rows_or_are_marked() -> None:
    """`compare` averages what the paper did: the same columns, against the same un-pruned row."""
    checked = 0
    for table, _ in sources():
        unpruned = {line.column: line for line in table.lines if line.method == "none" and line.quantity == "score"}
        for line in table.lines:
            if line.quantity not in MEANS or not made_from(line, table.lines):
                continue
            low, high = 0.0, 0.0
            parts = parts_of(line, table.lines)
            for part in parts:
                value, slack = float(part.value), half(part.value)
                base, base_slack = 100.0, 0.0
                if line.quantity == "average relative %":
                    base, base_slack = float(unpruned[part.column].value), half(unpruned[part.column].value)
                low += 100 * (value - slack) / (base + base_slack) / len(parts)
                high += 100 * (value + slack) / (base - base_slack) / len(parts)
            agrees = low - half(line.value) - 1e-9 <= float(line.value) <= high + half(line.value) + 1e-9
            assert agrees or line.erratum, (table.name, line.row, line.value, low, high)
            checked += 1
    assert checked >= 70


def fastv() -> list[Printed]:
    return list(printed_lines(FASTV, HERE))


def stored(protocol: str, method: str = "fastv", right: float = 0.5) -> RunRecord:
    rng = np.random.default_rng(0)
    datasets = {
        name: records.dataset(score=records.score((rng.random(60) < right).astype(float)), rows=60)
        for name in ("mini-mme", "mini-pope")
    }
    spec = MethodSpec(method, 0.333).normalised()
    run = records.run(spec.record(spec.pruner(), attends=[True] * 6), datasets, spec.ratio, 0, "tiny-qwen2.5-vl")
    return run.model_copy(update={"setup": run.setup.model_copy(update={"protocol": protocol})})


def joined(*runs: RunRecord) -> dict[tuple[str, str], Compared]:
    return {(one.line.row, one.line.column): one for one in compare(fastv(), StoredRuns(runs))}


def test_a_budget_on_average_is_joined_with_the_average_protocol_only() -> None:
    one = joined(stored("average"))["FastV at 33.3 %", "POPE"]
    assert one.ours is not None
    assert "our ratio is the average over all layers" in one.line.note
    assert joined(stored("site"))["FastV at 33.3 %", "POPE"].ours is None
    assert joined(stored("average"))["FastV at 22.2 %", "POPE"].ours is None  # no setting of ours


def test_ours_is_shown_in_the_papers_unit() -> None:
    run = stored("average")
    score = run.datasets["mini-mme"].score
    assert score is not None
    one = joined(run)["FastV at 33.3 %", "MME"]
    assert one.ours is not None
    assert one.ours.value == pytest.approx(28 * score.value)
    assert one.ours.interval is not None
    assert one.difference == pytest.approx(28 * score.value - float(one.line.value))
    assert one.ours.interval[0] < one.ours.value < one.ours.interval[1] <= 2800


def test_a_mean_without_one_of_its_columns_is_not_ours() -> None:
    runs = [stored("average"), stored("site", "none", 0.9)]
    assert joined(*runs)["FastV at 33.3 %", "average"].ours is None
    whole = {**FASTV, "columns": {**FASTV["columns"], "MMB": "mini-mme"}}  # type: ignore[dict-item]  # one type
    means = [one for one in compare(list(printed_lines(whole, HERE)), StoredRuns(runs)) if one.line.column == "average"]
    assert [one.line.row for one in means if one.ours] == ["vanilla at 100 %", "FastV at 33.3 %"]


def test_what_is_without_ours_is_named() -> None:
    rows, columns, means = without_ours(fastv())
    assert "HoloV at 33.3 %" in rows
    assert "FastV at 22.2 %" in rows
    assert "FastV at 33.3 %" not in rows
    assert columns == "columns without a benchmark of ours: MMB"
    assert means.startswith("7 means")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"place": "Table 9"}, "has no table 2510.02912, Table 9"),
        ({"methods": {"vanilla": "none", "FastV": None, "HoloV": None, "VTW": "vtw"}}, "`methods` names VTW"),
        ({"ratios": {"100 %": 1, "33.3 %": 0.333, "22.2 %": 0.222}}, "`ratios` .* lacks 11.1 %"),
        ({"ratios": {"100 %": 2}}, "another form"),
        ({"method": {}}, "another form"),
    ],
)
def test_a_block_that_does_not_fit_its_table_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        printed_lines({**FASTV, **change}, HERE)
