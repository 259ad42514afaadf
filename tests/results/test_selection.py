"""Chosen rows and columns, and the table for a paper: nothing but what was chosen changes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results

from tests.helpers.records import dataset, run, tokens
from tests.results.test_store import store
from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.results.latex import escaped, latex
from uniprune.results.leaderboard import Leaderboard, leaderboard
from uniprune.results.model_index import model_index
from uniprune.results.selection import Selection, plain_rows

GOOD, FAIR, POOR = [1.0] * 8 + [0.0] * 2, [1.0] * 6 + [0.0] * 4, [1.0] * 2 + [0.0] * 8
RUNS = [
    run("none", {"x": dataset(GOOD), "y_1": dataset(GOOD)}, model="m"),
    run("one", {"x": dataset(GOOD), "y_1": dataset(POOR)}, ratio=0.11111, model="m"),
    run("two", {"x": dataset(FAIR), "y_1": dataset(FAIR)}, ratio=0.11111, model="m"),
    run("three", {"x": dataset(POOR), "y_1": dataset(FAIR)}, ratio=0.11111, model="m"),
    run("two", {"x": dataset(POOR, ledger=tokens(40)), "y_1": dataset(POOR, ledger=tokens(40))}, ratio=0.5, model="m"),
]


@pytest.fixture(scope="module")
def board() -> Leaderboard:
    return leaderboard(RUNS)


def methods(board: Leaderboard) -> list[tuple[object, object]]:
    return [(row["method"], row["ratio"]) for row in board.rows]


def test_rows_are_chosen_and_the_baseline_stays(board: Leaderboard) -> None:
    whole = {row["method"]: row["relative %"] for row in board.rows if row["ratio"] != 0.5}
    some = Selection(methods=["t*"]).rows(board)
    assert sorted(methods(some), key=str) == [("three", 0.11111), ("two", 0.11111), ("two", 0.5)]
    assert all(row["relative %"] == whole[row["method"]] for row in some.rows if row["ratio"] != 0.5)
    assert some.notes[0] == "3 of 5 rows are shown (--model, --method, --ratio); ranks are among them."
    assert [name for name, _ in methods(Selection(ratios=[0.111]).rows(board))] == ["none", "one", "three", "two"]
    assert Selection(ratios=[0.111, 0.5], methods=["*"], models=["m"]).rows(board) is board


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(methods=["on"]), "unknown --method 'on'; did you mean 'one'"),
        (Selection(models=["n"]), "unknown --model 'n'; known: m"),
        (Selection(ratios=[0.2]), "no run has --ratio 0.2; there are 0.11111, 0.5"),
        (Selection(ratios=[0.5], methods=["one"]), "no run has the chosen --model, --method and --ratio together"),
        (Selection(columns=["averge"]), "unknown column 'averge'; did you mean 'average'"),
        (Selection(sort="averge"), "unknown column 'averge'; did you mean 'average'"),
    ],
    ids=["method", "model", "ratio", "none left", "column", "sort"],
)
def test_a_choice_of_nothing_is_refused(selection: Selection, message: str, board: Leaderboard) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        selection.table(selection.rows(board))


def test_columns_come_in_the_chosen_order_and_rows_sorted(board: Leaderboard) -> None:
    table = Selection(columns=["method", "average", "x"], sort="average").table(board)
    assert [*table.columns] == ["method", "average", "x"]
    assert [row["method"] for row in table.rows] == ["none", "two", "one", "three", "two"]
    assert table.csv().splitlines()[0].startswith("method,average,average low")
    assert not table.apart()
    lowest = Selection(columns=["method", "ratio"], sort="-ratio").table(board)
    assert [row["ratio"] for row in lowest.rows] == [0.11111] * 3 + [0.5, 1.0]
    assert [*Selection(columns=["all"]).table(board, ["method"]).columns] == [*board.columns]
    assert [*Selection().table(board, ["x", "method"]).columns] == ["method", "x"]


def test_json_has_unrounded_numbers(board: Leaderboard) -> None:
    rows = plain_rows(Selection(columns=["method", "average"], sort="average").table(board))
    assert rows[0]["method"] == "none"
    assert isinstance(average := rows[0]["average"], dict)
    assert average["value"] == 80.0
    json.dumps(rows, allow_nan=False)


def test_latex_marks_the_best_of_a_budget_group_only(board: Leaderboard) -> None:
    text = latex(board, board.columns, "command")
    assert text.startswith("% command\n")
    table = text[text.index("\\begin") :]
    assert table.splitlines()[0] == "\\begin{tabular}{llrrrr}"
    lines = {line.split(" & ")[0]: line for line in table.splitlines() if " & " in line}
    assert lines["Method"] == r"Method & Tokens & x & y\_1 & Avg. & Rel. \% \\"
    assert lines["m"] == r"m & 16.0 & 80.0 & 80.0 & 80.0 & 100.0 \\", "a group of one has no best"
    assert lines["one"].startswith(r"one & 16.0 & \textbf{80.0} & \underline{20.0} & \underline{50.0} & ")
    assert r"two & 16.0 & \underline{60.0} & \textbf{60.0} & \textbf{60.0} & \textbf{75.0} \\" in table
    assert lines["three"].startswith(r"three & 16.0 & 20.0 & \textbf{60.0} & 40.0"), "equal numbers share a mark"
    assert r"two & 40.0 & 20.0 & 20.0 & 20.0 & 25.0 \\" in table
    order = ["un-pruned", "keep ratio 50 \\%", "keep ratio 11.11 \\%"]
    assert sorted(order, key=table.index) == order
    assert table.count("\\midrule") == 3
    assert table.endswith("\\bottomrule\n\\end{tabular}\n")
    assert escaped(r"a_b & 5% ~ \x") == r"a\_b \& 5\% \textasciitilde{} \textbackslash{}x"
    assert "y\\_1" not in latex(board, ["x", "average"])


def test_limited_runs_are_named_below_the_latex_table() -> None:
    some = run("none", {"x": dataset(GOOD, whole=50)}, limit=10)
    text = latex(leaderboard([some]), ["x"])
    assert r"\footnotesize All scores: the first rows only, 10 of 50 rows.} \\" in text


def test_the_hub_reads_the_model_index(board: Leaderboard) -> None:
    entries = yaml.safe_load(model_index(board))["model-index"]
    assert "&id" not in model_index(board)
    _, results = model_index_to_eval_results(entries)
    assert [(one.dataset_name, one.metric_value) for one in results[:2]] == [("x", 80.0), ("y_1", 80.0)]
    assert results[0].metric_args is not None
    assert results[0].metric_args["rows"] == 10
    assert len(results) == 10


def test_the_command_writes_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path, *RUNS[:3])
    files = {kind: tmp_path / f"board.{kind}" for kind in ("latex", "json", "model-index", "csv")}
    words = [word for kind, file in files.items() for word in (f"--{kind}", str(file))]
    assert main(["leaderboard", "--output", str(tmp_path), *words, "--columns", "method", "average"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split() == ["method", "average"]
    assert json.loads(files["json"].read_text())["rows"][0]["method"] == "none"
    assert "\\begin{tabular}{llr}" in files["latex"].read_text()
    assert files["csv"].read_text().startswith("method,average,")
    assert main(["leaderboard", "--output", str(tmp_path)]) == 0
    assert "more columns: --columns all" in capsys.readouterr().out
