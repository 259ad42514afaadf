"""The script that writes the mini suite's pages, on runs whose numbers are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.paths import ROOT
from uniprune.benchmarks.mini.pages import CURVES, METHODS, NEWER_PAGE, Page
from uniprune.benchmarks.mini.report import main, markdown, stored
from uniprune.benchmarks.mini.rows import ABILITIES, among_equal_budgets, rows
from uniprune.errors import UserError
from uniprune.utils.tables import to_csv


def record(method: str, ratio: float, credit: float, seed: int = 0, tables: int = 10) -> Any:
    """A run in which every item of every table has the same credit."""
    entries = {
        f"table {i}": SimpleNamespace(
            suite="mini",
            faulty={},
            ability=ABILITIES[i % len(ABILITIES)],
            ledger=SimpleNamespace(average=144 * ratio),
            score=SimpleNamespace(value=100 * credit, per_item={"0": credit, "1": credit}),
        )
        for i in range(tables)
    }
    kind = {"none": "none", "fastv": "intra-llm", "random-intra": "intra-llm"}.get(method, "pre-llm")
    setup = SimpleNamespace(method=SimpleNamespace(name=method, kind=kind), ratio=ratio, seed=seed)
    return SimpleNamespace(datasets=entries, setup=setup, model=SimpleNamespace(name="tiny-llava"))


DOCS = ROOT / "docs"
RUNS = [
    record("fastv", 0.222, 0.75),
    record("divprune", 0.222, 0.25),
    record("divprune", 0.222, 0.9, tables=9),
    record("random-pre", 0.222, 0.5, seed=1),
    record("random-pre", 0.222, 0.25),
    record("none", 1.0, 1.0),
    record("divprune", 0.9, 1.0),
    record("unlisted", 0.222, 1.0),
]


def test_curves_show_one_seed_in_the_order_of_the_page() -> None:
    table = rows(CURVES, RUNS)
    assert [(row["method"], row["ratio"], row["average"], row["visual tokens"]) for row in table] == [
        ("none", "1", "100.0", "144.0"),
        ("random-pre", "0.222", "25.0", "32.0"),
        ("divprune", "0.222", "25.0", "32.0"),
        ("fastv", "0.222", "75.0", "32.0"),
    ]


def test_methods_are_compared_with_the_mean_of_random_pruning_of_their_kind() -> None:
    by_method = {row["method"]: row for row in rows(METHODS, RUNS)}
    assert (by_method["random-pre"]["average"], by_method["random-pre"]["spread"]) == ("37.5", "17.7")
    assert [by_method["divprune"][column] for column in ("random", "low", "high")] == ["-12.5"] * 3
    assert "random" not in by_method["fastv"], "no random pruning inside the language model was run"
    assert "| divprune | 0.222 |" in markdown(METHODS, rows(METHODS, RUNS))
    assert "**-12.5** (-12.5 to -12.5) |" in markdown(METHODS, rows(METHODS, RUNS))


def test_a_method_is_compared_with_random_pruning_of_equal_budget_only() -> None:
    runs = [*RUNS, record("random-intra", 0.222, 0.5, seed=1), record("random-intra", 0.222, 0.5)]
    for run in runs[-2:]:
        for entry in run.datasets.values():
            entry.ledger.average = 58.7
    table = rows(METHODS, runs)
    kept = {row["method"]: row.get("random") for row in among_equal_budgets(table)}
    assert {row["method"]: row.get("random") for row in table}["fastv"] == "+25.0"
    assert (kept["fastv"], kept["divprune"], kept["random-intra"]) == ("", "-12.5", None)
    lines = {line.split(" | ")[0]: line for line in markdown(METHODS, table).splitlines() if " | 0.222 | " in line}
    assert lines["| fastv"].endswith("| other budget: 58.7 |")
    assert lines["| divprune"].endswith("**-12.5** (-12.5 to -12.5) |")
    assert markdown(METHODS, table) == markdown(METHODS, among_equal_budgets(table))


def test_runs_that_left_rows_out_are_refused_by_name() -> None:
    run = record("divprune", 0.222, 0.25)
    run.identity, run.datasets["table 3"].faulty = "abc", {"7": "refused"}
    with pytest.raises(UserError, match=r"run abc left rows out of table 3 \(1 rows\)"):
        rows(METHODS, [*RUNS, run])


@pytest.mark.parametrize("page", [CURVES, METHODS, NEWER_PAGE], ids=lambda page: page.name)
def test_the_committed_pages_are_those_of_the_script(page: Page) -> None:
    kept, notes = stored(page, DOCS, page.models)
    assert {row["model"] for row in kept} == set(page.models)
    assert kept == among_equal_budgets(kept)
    assert markdown(page, kept, notes) == (DOCS / f"{page.name}.md").read_text(encoding="utf-8")
    assert to_csv(page.columns, kept) == (DOCS / f"{page.name}.csv").read_text(encoding="utf-8")


def test_rows_of_other_models_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mini-suite.csv", "mini-suite.md"):
        (tmp_path / name).write_text((DOCS / name).read_text(encoding="utf-8") + "\nA note.\n" * name.endswith("md"))
    monkeypatch.setattr("uniprune.benchmarks.mini.report.Store", lambda folder: SimpleNamespace(records=lambda: RUNS))
    monkeypatch.setattr("uniprune.benchmarks.mini.report.row_notes", lambda entries: ["Another note."])
    words = ["report", "--docs", str(tmp_path), "--results", "runs", "--model"]
    monkeypatch.setattr("sys.argv", [*words, "tiny-llava"])
    main()
    before, after = (stored(CURVES, folder, CURVES.models) for folder in (DOCS, tmp_path))
    assert after[0][:4] == [dict.fromkeys(CURVES.columns) | row for row in rows(CURVES, RUNS)]
    assert after[0][4:] == [row for row in before[0] if row["model"] != "tiny-llava"]
    assert after[1] == [*before[1], "A note.", "Another note."]
    monkeypatch.setattr("sys.argv", [*words, "tiny-internvl"])
    with pytest.raises(UserError, match="runs has no complete run of tiny-internvl"):
        main()


def methods_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: list[Any]) -> tuple[Page, list[str]]:
    """Write a page of one model and ratio with `RUNS`, and let the script read `runs`; return its arguments, too."""
    page = replace(METHODS, name="page", models=("tiny-llava",), ratios=(0.222,))
    table = rows(page, [*RUNS, record("random-intra", 0.222, 0.5)])
    (tmp_path / "page.csv").write_text(to_csv(page.columns, table), encoding="utf-8")
    (tmp_path / "page.md").write_text(markdown(page, table), encoding="utf-8")
    module = "uniprune.benchmarks.mini.report"
    monkeypatch.setattr(f"{module}.METHODS", page)
    monkeypatch.setattr(f"{module}.Store", lambda folder: SimpleNamespace(records=lambda: runs))
    monkeypatch.setattr(f"{module}.row_notes", lambda entries: [])
    return page, ["report", "--methods", "--docs", str(tmp_path), "--results", "runs", "--method"]


BASIS = [run for run in RUNS if run.setup.method.name in ("none", "random-pre")] + [record("random-intra", 0.222, 0.5)]


def test_rows_of_other_methods_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, words = methods_page(tmp_path, monkeypatch, [*BASIS, record("gprune", 0.222, 0.75)])
    before = stored(page, tmp_path, page.models)[0]
    monkeypatch.setattr("sys.argv", [*words, "gprune"])
    main()
    after = stored(page, tmp_path, page.models)[0]
    assert [row["method"] for row in after] == ["none", "random-pre", "random-intra", "divprune", "fastv", "gprune"]
    assert [row for row in after if row["method"] != "gprune"] == before
    assert after[-1]["random"] == "+37.5"
    monkeypatch.setattr("sys.argv", words)
    main()
    assert stored(page, tmp_path, page.models)[0] == after, "no method: only the text is written again"


def test_rows_that_cannot_be_compared_are_not_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, changed = record("gprune", 0.222, 0.75), record("random-pre", 0.222, 0.75, seed=2)
    for runs, method, says in (
        ([*BASIS, own], "fopru", "no complete run of tiny-llava fopru 0.222; run them first"),
        ([*BASIS[1:], own], "gprune", "no complete run of tiny-llava random-pre 0.222|other numbers of"),
        ([*BASIS, own, changed], "gprune", "other numbers of tiny-llava random-pre 0.222 than page.csv"),
        ([*BASIS, own], "unlisted", "unlisted: not among the methods of page"),
    ):
        _, words = methods_page(tmp_path, monkeypatch, runs)
        monkeypatch.setattr("sys.argv", [*words, method])
        with pytest.raises(UserError, match=says):
            main()
