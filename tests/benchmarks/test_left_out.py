"""Rows that are left out are in no part of a score, and neither are the rows scored together with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.kit_agreement import row_name
from tests.helpers.kit_tables import EXAMPLES, Example, Row, write
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions, Score

pytestmark = pytest.mark.end_to_end


def opened(name: str, folder: Path, rows: list[Row]) -> KitDataset:
    return KitDataset(name, TASKS[name], write(folder / f"{name}.tsv", rows), DataOptions(folder, judge="rule"))


def example(name: str) -> Example:
    """The example; for HallusionBench with a second set, of which the first answer is wrong."""
    found = EXAMPLES[name]
    if name != "hallusionbench":
        return found
    second = {row["index"]: f"VD_figure_1_1_{str(row['index'])[-3:]}" for row in found.rows}
    answers = {second[row["index"]]: str(row["answer"]) for row in found.rows} | {"VD_figure_1_1_0_0": "No"}
    rows = [*found.rows, *({**row, "index": second[row["index"]]} for row in found.rows)]
    return replace(found, rows=rows, answers={**found.answers, **answers})


GROUPS = {
    "mme": {"1": ["0", "1"], "2": ["2", "3"]},
    "mmvp": {"2": ["2", "3"], "5": ["0", "1", "4", "5"]},
    "mmbench-en": {"2000001": ["1", "1000001", "2000001", "3000001"], "0": ["0", "1000000", "2000000", "3000000"]},
    "hallusionbench": {
        f"VD_figure_1_{number}_1_0": [
            f"VD_figure_1_{number}_{figure}_{question}" for figure in (0, 1) for question in (0, 1)
        ]
        for number in (0, 1)
    },
}
"""Row -> the rows scored together with it."""
CASES = [
    (name, row, group)
    for name in EXAMPLES
    if TASKS[name].kit_name in {"MME", "MMBench_DEV_EN_V11", "HallusionBench", "MMVP"} or TASKS[name].grouping is None
    for row, group in GROUPS.get(name, {index: [index] for index in list(EXAMPLES[name].answers)[:2]}).items()
]


def partition(score: Score) -> set[frozenset[str]]:
    """The clusters, which are named by their first row in the file, left out or not."""
    rows: dict[str, set[str]] = {}
    for row, cluster in score.clusters.items():
        rows.setdefault(cluster, set()).add(row)
    return set(map(frozenset, rows.values()))


@pytest.mark.sample(2)
@pytest.mark.parametrize(("name", "row", "group"), CASES, ids=[f"{name} {row}" for name, row, _ in CASES])
def test_a_score_without_rows_is_that_of_a_file_without_them(
    name: str, row: str, group: list[str], tmp_path: Path
) -> None:
    table = example(name)
    whole = opened(name, tmp_path, table.rows)
    short = opened(name, tmp_path, [one for one in table.rows if row_name(name, one) not in group])
    answers = {index: text for index, text in table.answers.items() if index not in group}
    expected = short.score(answers, tmp_path / "short")
    refused = {index: text for index, text in table.answers.items() if index != row}
    score = whole.score(refused, tmp_path / "whole", left_out={row: "refused"})
    assert replace(score, details={}, clusters={}) == replace(expected, details={}, clusters={})
    assert partition(score) == partition(expected)
    assert score.details["table"] == expected.details["table"]
    assert score.rows == len(table.answers) - len(group)
    assert set(score.details["faulty"]) == set(group)
    assert score.details["faulty"][row] == "refused"
    others = {reason for index, reason in score.details["faulty"].items() if index != row}
    assert others <= {f"scored together with row {row}, which is left out"}


def test_every_dataset_whose_headline_joins_rows_leaves_them_out_together() -> None:
    grouped = {name for name, task in TASKS.items() if task.grouping is not None}
    assert grouped == {"mme", "hallusionbench", "mmvp", *(name for name in TASKS if name.startswith("mmbench"))}


def test_a_set_of_figures_with_a_faulty_row_is_faulty_and_a_limit_takes_whole_sets(tmp_path: Path) -> None:
    rows = [dict(row) for row in example("hallusionbench").rows]
    assert [len(opened("hallusionbench", tmp_path, rows).requests(limit)) for limit in (1, 4, 7, 8)] == [4, 4, 4, 8]
    rows[5]["answer"] = "maybe"
    dataset = opened("hallusionbench", tmp_path, rows)
    assert set(dataset.faulty) == {row["index"] for row in rows[4:]}
    assert len({request.group for request in dataset.requests()}) == 1


@pytest.mark.parametrize("name", ["pope", "mme"])
def test_a_row_without_prediction_or_reason_is_an_error(name: str, tmp_path: Path) -> None:
    table = EXAMPLES[name]
    dataset = opened(name, tmp_path, table.rows)
    some = {index: text for index, text in table.answers.items() if index != "1"}
    with pytest.raises(UserError, match=r"1 rows have no prediction, for example 1; .*`left_out`"):
        dataset.score(some, tmp_path)
    with pytest.raises(UserError, match=r"all \d rows are left out, so there is no score"):
        dataset.score({}, tmp_path, left_out=dict.fromkeys(table.answers, "refused"))
    with pytest.raises(UserError, match="does not have: 77"):
        dataset.score(table.answers, tmp_path, left_out={"77": "refused"})


def test_rows_beyond_the_limit_are_neither_scored_nor_left_out(tmp_path: Path) -> None:
    table = EXAMPLES["pope"]
    score = opened("pope", tmp_path, table.rows).score({"0": "Yes"}, tmp_path, 2, left_out={"1": "refused"})
    assert (score.rows, score.value, score.details["faulty"]) == (1, 100, {"1": "refused"})
