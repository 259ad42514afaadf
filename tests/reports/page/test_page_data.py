"""The data behind the report: every number with its run, intervals, conditions, provenance, items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.page_runs import KEPT, made_up, stored
from tests.helpers.paths import PLUGINS
from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.modeling.messages import Part
from uniprune.registry import load_plugin
from uniprune.reports.page import page
from uniprune.reports.page.cards import card
from uniprune.reports.page.items import ItemOptions, shown
from uniprune.reports.page.page import page_data, report_page
from uniprune.results.leaderboard import leaderboard
from uniprune.results.records import RunRecord


@pytest.fixture(scope="module")
def runs() -> list[RunRecord]:
    load_plugin(PLUGINS / "small_benchmark.py")
    return made_up(4)


@pytest.fixture(scope="module")
def options(runs: list[RunRecord], tmp_path_factory: pytest.TempPathFactory) -> ItemOptions:
    store = stored(runs, tmp_path_factory.mktemp("runs"))
    return ItemOptions(5, Path("unused"), lambda run, name: store.root / run / f"{name}.jsonl")


@pytest.fixture(scope="module")
def data(runs: list[RunRecord], options: ItemOptions) -> dict[str, Any]:
    return page_data(leaderboard(runs), options, {runs[0].identity: "runs/x"})


def value(data: dict[str, Any], row: dict[str, Any], column: str) -> Any:
    return row["cells"][[name for name, _ in data["columns"]].index(column)]


def test_every_column_of_the_leaderboard_is_on_the_page_once(data: dict[str, Any], runs: list[RunRecord]) -> None:
    names = [name for name, _ in data["columns"]]
    assert len(names) == len(set(names))
    assert set(names) == set(leaderboard(runs).columns)
    assert dict(data["columns"])["small"] == "benchmarks"


def test_cells_hold_number_and_interval_of_the_board(data: dict[str, Any], runs: list[RunRecord]) -> None:
    board = leaderboard(runs)
    for row, line in zip(data["rows"], board.rows, strict=True):
        average: Any = line["average"]
        assert value(data, row, "average")[1:4] == [average.value, *average.interval]
        assert row["whole"] == (line["method"] == "none")
        assert row["runs"] == str(line["identity"]).split()
        assert value(data, row, "batch") == "8"
        assert value(data, row, "device") == "NVIDIA H100"
    assert any(row["tied"] for row in data["rows"])


def test_abilities_are_means_of_their_benchmarks_and_absent_if_one_is(data: dict[str, Any]) -> None:
    for row in data["rows"]:
        assert row["abilities"]["ocr"][1] == value(data, row, "charts")[1]
    whole, *pruned = made_up(1)
    two = {name: whole.datasets[name] for name in ("small", "charts")}
    fewer = [whole.model_copy(update={"datasets": two}), *pruned]
    none = ItemOptions(0, Path(), lambda run, name: Path())
    rows = page_data(leaderboard(fewer), none, {})["rows"]
    assert [set(row["abilities"]) for row in rows if row["whole"]] == [{"perception", "ocr"}]


def test_a_run_has_its_provenance(data: dict[str, Any], runs: list[RunRecord]) -> None:
    run = data["runs"][runs[1].identity]
    entry = run["datasets"]["small"]
    assert (run["model"]["source"], run["setup"]["limit"], entry["data"], entry["days"]) == (
        "s", None, "small-1", ["2026-03-31"],
    )  # fmt: skip
    [machine] = data["environments"]
    assert [machine["device"], machine["git"], machine["versions"]["uniprune"]] == ["NVIDIA H100", "abc123", "1.2.3"]
    assert entry["environments"] == [0]
    assert entry["batching"] == {"8": 12}
    assert entry["timing"]["spans"]["prefill"][0] == pytest.approx(1.11)
    assert "per_item" not in entry["score"]


def test_a_limited_run_is_an_alert(runs: list[RunRecord]) -> None:
    none = ItemOptions(0, Path(), lambda run, name: Path())
    data = page_data(leaderboard(made_up(1, limit=12)), none, {})
    [alert] = data["alerts"]
    assert alert.startswith("Not the whole benchmarks: --limit 12 ran small 12 of 100, charts 12 of 100")
    assert value(data, data["rows"][0], "rows")[0] == "36 of 300"


def test_items_are_those_that_differ_most_with_question_image_and_predictions(
    data: dict[str, Any], runs: list[RunRecord]
) -> None:
    small = data["items"]["small"]
    assert (len(small["items"]), small["total"]) == (5, 12)
    spreads = [(one := sum(item["credits"]) / len(item["credits"])) * (1 - one) for item in small["items"]]
    assert spreads == sorted(spreads, reverse=True)
    item = small["items"][0]
    assert "circle" in item["question"]
    assert item["images"][0].startswith("data:image/jpeg;base64,")
    assert item["predictions"] == [f"<i>{credit:g}</i>" for credit in item["credits"]]
    assert item["kept"] == {str(i): KEPT for i in range(1, 13)}
    assert small["runs"] == [run.identity for run in leaderboard(runs).comparison.groups[0].runs] + small["runs"][1:]


def test_items_without_their_file_say_so(data: dict[str, Any]) -> None:
    charts = data["items"]["charts"]
    assert charts["notes"] == ["charts: no questions, it is registered by a plugin (--plugin FILE)"]
    assert "question" not in charts["items"][0]


def test_runs_on_other_data_are_counted(runs: list[RunRecord], options: ItemOptions) -> None:
    other = runs[-1].datasets["small"].model_copy(update={"data": "changed"})
    changed = [*runs[:-1], runs[-1].model_copy(update={"datasets": {"small": other}})]
    small = page_data(leaderboard(changed), options, {})["items"]["small"]
    assert small["notes"] == ["1 runs have answered another data file and are not shown."]
    assert len(small["runs"]) == len(runs) - 1


def test_an_image_that_cannot_be_decoded_is_named() -> None:
    def load() -> list[Part]:
        raise OSError("image file is truncated")

    assert shown(Request("1", load, "why?"))["problem"] == "An image cannot be shown: OSError: image file is truncated"


def test_a_card_of_a_method_that_is_not_registered_says_so() -> None:
    assert "not registered here" in card("somebody-elses")["text"]
    assert card("divprune")["paper"].startswith("arXiv")


def test_without_the_plotting_library_the_error_has_the_remedy(
    runs: list[RunRecord], options: ItemOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install 'plotly>=6'"):
        report_page(leaderboard(runs), options, {})
