"""Runs with rows that the model's processor refuses: what is scored, recorded, printed, and has no score at all."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from tests.helpers.kit_tables import EXAMPLES, Row, write
from tests.helpers.paths import PLUGINS
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.cli.main import main
from uniprune.errors import Failure, NoScoreError, UserError
from uniprune.evaluation.dataset import DataOptions, Dataset, Request, Score, with_groups
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.run import Run
from uniprune.modeling.loading import LoadedModel
from uniprune.registry import BENCHMARKS, load_plugin
from uniprune.results.leaderboard import leaderboard
from uniprune.results.records import RunRecord
from uniprune.results.store import Store
from uniprune.results.table import RowsCell
from uniprune.utils.console import RunProgress

pytestmark = pytest.mark.end_to_end

REFUSED = "What is an <image> token?"
"""A text in which the processor of LLaVA finds a second image."""
KINDS = {
    "mme": ("2", ["2", "3"]),
    "mmbench-en": ("1000001", ["1", "1000001", "2000001", "3000001"]),
    "hallusionbench": ("VD_figure_1_1_0_1", [f"VD_figure_1_1_{n}" for n in ("0_0", "0_1", "1_0", "1_1")]),
    "pope": ("3", ["3"]),
    "ocrbench": ("1", ["1"]),
    "mia-bench": ("0", ["0"]),
}
"""Benchmark -> the refused row, and all rows that are left out with it."""


def rows(name: str, refused: list[str]) -> list[Row]:
    """The example's rows, of HallusionBench two sets, some with a question that is refused."""
    table = EXAMPLES[name].rows
    if name == "hallusionbench":
        table = [*table, *(row | {"index": f"VD_figure_1_1_{str(row['index'])[-3:]}"} for row in table)]
    return [row | ({"question": REFUSED} if str(row["index"]) in refused else {}) for row in table]


def opened(name: str, folder: Path, table: list[Row]) -> KitDataset:
    return KitDataset(name, TASKS[name], write(folder / f"{name}.tsv", table), DataOptions(folder, judge="rule"))


def evaluate(loaded: LoadedModel, output: Path, *datasets: Dataset) -> tuple[RunRecord, str]:
    """Return the record and what was printed."""
    text = io.StringIO()
    with RunProgress(99, Console(file=text)) as progress:
        run = Run(loaded, MethodSpec("none"), RunOptions(max_new_tokens=4))
        record = run.evaluate(list(datasets), Store(output), progress)
    return record, text.getvalue()


@pytest.mark.parametrize("name", KINDS)
def test_a_run_scores_the_rows_of_a_file_without_the_refused_ones(
    name: str, loaded: LoadedModel, tmp_path: Path
) -> None:
    row, group = KINDS[name]
    record, printed = evaluate(loaded, tmp_path / "whole", opened(name, tmp_path, rows(name, [row])))
    short = [one for one in rows(name, []) if str(one["index"]) not in group]
    expected, _ = evaluate(loaded, tmp_path / "short", opened(name, tmp_path, short))
    entry, other = record.datasets[name], expected.datasets[name]
    assert entry.score is not None
    assert other.score is not None
    assert replaced(entry.score) == replaced(other.score)
    assert (entry.score.rows, entry.left_out, entry.refused) == (len(short), len(group), 1)
    assert entry.answered == entry.rows - 1
    assert set(entry.faulty) == set(group)
    assert "the model's processor" in entry.faulty[row]
    assert {reason for index, reason in entry.faulty.items() if index != row} <= {
        f"scored together with row {row}, which is left out"
    }
    assert f"on {len(short)} rows, {len(group)} of {entry.rows} rows left out" in printed
    assert entry.timing is not None
    assert entry.timing.rows == entry.answered
    board = leaderboard([record])
    assert isinstance(cell := board.rows[0]["rows"], RowsCell)
    assert (cell.rows, board.rows[0]["left out"]) == (len(short), len(group))


def replaced(score: object) -> dict[str, object]:
    """A score without what names the rows that are not scored."""
    fields: dict[str, object] = score.model_dump(exclude={"clusters"})  # type: ignore[attr-defined]
    details = fields["details"]
    assert isinstance(details, dict)
    return {**fields, "details": details["table"]}


def test_a_benchmark_of_which_all_is_left_out_has_no_score_and_the_others_have(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """One refused question of every pair suffices."""
    mme, pope = opened("mme", tmp_path, rows("mme", ["0", "2", "5"])), opened("pope", tmp_path, rows("pope", []))
    with pytest.raises(NoScoreError, match=r"mme: all 6 rows are left out.*row 0: the model's processor.*mme\.jsonl"):
        evaluate(loaded, tmp_path, mme, pope)
    [record] = Store(tmp_path).records()
    assert record.datasets["mme"].score is None
    assert record.datasets["mme"].unscorable
    assert record.datasets["pope"].score is not None
    assert (record.datasets["mme"].answered, record.datasets["mme"].refused) == (3, 3)
    board = leaderboard([record])
    assert board.rows[0].get("mme") is None
    assert any("mme: no score, all 6 rows are left out" in note for note in board.notes)


def test_a_failure_without_score_is_one_line_and_no_mistake_of_the_user() -> None:
    failure = Failure.of(NoScoreError("x: all rows are left out"))
    assert (failure.message, failure.user) == ("x: all rows are left out", False)


@pytest.mark.parametrize("scored", [{"rows": 12}, {"per_item": {"3": 0.0}}], ids=["rows", "items"])
def test_a_plugin_that_counts_rows_left_out_is_refused(
    scored: dict[str, object], loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_plugin(PLUGINS / "small_benchmark.py")
    dataset = BENCHMARKS.get("small-broken")(DataOptions(tmp_path))
    right = dataset.score

    def wrong(*words: object, **named: object) -> Score:
        return replace(right(*words, **named), **scored)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset, "score", wrong)
    with pytest.raises(UserError, match=r"small-broken: its score is refused and not stored: (rows is|per_item has)"):
        evaluate(loaded, tmp_path, dataset)


def test_groups_are_left_out_with_their_refused_row() -> None:
    requests = [
        Request(i, list, "", group=group) for i, group in zip("abcdef", ["", "x", "x", "y", "y", ""], strict=True)
    ]
    assert with_groups({"c": "damaged", "f": "damaged"}, requests) == {
        "c": "damaged",
        "f": "damaged",
        "b": "scored together with row c, which is left out",
    }
    assert with_groups({}, requests) == {}


PLUGIN = '''
from pathlib import Path
from uniprune.registry import register_benchmark

def register(name):
    @register_benchmark(name, suite="mine", ability="ocr", metric="accuracy", judge=False)
    def load(options):
        """Four rows."""
        from uniprune.benchmarks._kit.dataset import KitDataset
        from uniprune.benchmarks._kit.tasks import TASKS
        return KitDataset(name, TASKS["seedbench2-plus"], Path(__file__).with_name(name + ".tsv"), options)

register("some")
register("nothing")
'''


def test_commands_end_with_the_reason_and_run_nothing_again_until_lines_are_deleted(
    checkpoint: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    name = "seedbench2-plus"
    write(tmp_path / "some.tsv", rows(name, ["1"]))
    write(tmp_path / "nothing.tsv", rows(name, ["0", "1", "2", "3"]))
    model, output = str(checkpoint("llava")), tmp_path / "out"  # type: ignore[operator]
    common = ["--plugin", str(tmp_path / "mine.py"), "--output", str(output), "--device", "cpu"]
    one = ["--model", model, "--method", "none", "--data", "nothing"]
    assert main([*one, *common]) == 1
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert "error: nothing: all 4 rows are left out, so there is no score (row 0: the model's processor:" in printed.err
    assert " 0.0" not in printed.out

    grid = tmp_path / "grid.yaml"
    both = {"model": model, "method": ["none", "divprune"], "ratio": 0.5, "data": ["some", "nothing"]}
    grid.write_text(yaml.safe_dump({"title": "t", "runs": [both]}))
    assert main(["sweep", str(grid), *common]) == 1
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert all("nothing: all 4 rows are left out, so there is no score" in line for line in errors)
    assert printed.err.count("on 3 rows, 1 of 4 rows left out") == 2

    for words in (["sweep", str(grid)], ["--model", model, "--method", "none", "--data", "some", "nothing"]):
        assert main([*words, *common]) == 1
        printed = capsys.readouterr()
        assert "(float32" not in printed.err, "the model is not loaded for runs of which no row is left"
        assert "nothing: all 4 rows are left out, so there is no score" in printed.err
    assert main(["sweep", str(grid), *common, "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert "2 runs, 0 done; 0 rows left" in shown.out
    assert shown.out.count("no score") == 2
    assert "nothing: all 4 rows are left out" in shown.err

    for path in output.glob("*/nothing.jsonl"):
        path.unlink()
    write(tmp_path / "nothing.tsv", rows(name, ["0", "1", "2", "3"]))
    assert main(["sweep", str(grid), *common]) == 1
    assert capsys.readouterr().err.count("(float32") == 1, "the rows of a deleted file are run again"
    records = list(Store(output).records())
    assert all(record.datasets["nothing"].score is None for record in records)
    scores = [record.datasets["some"].score for record in records]
    assert [score and score.rows for score in scores] == [3, 3]
