"""Rows are told apart by the text of their index: 1, 01 and 1.0 are three rows, each with its own image and score."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.kit_tables import EXAMPLES, Example, Row, png, write
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.evaluation.dataset import DataOptions

ALIKE = ("1", "01", "1.0", "1.00", "1.1", "1.10", "1 ", "1_0", "10", "1e1", "True", "None", "nan", "0x10", "16", "-1")
"""Different texts; pandas or Python's `eval` reads some of them as one number, or as no text."""
NUMBERED = {name for name in EXAMPLES if TASKS[name].kit_name.startswith(("MMBench", "HallusionBench"))}
"""Datasets whose indexes hold numbers that the kit calculates with."""
RENAMED = {"refcoco"}
"""Datasets whose rows have a name that is more than their index: tests/benchmarks/test_boxes.py."""


def opened(name: str, folder: Path, rows: list[Row], *, official: str | None = None) -> KitDataset:
    file = write(folder / f"{name}.tsv", rows)
    return KitDataset(name, TASKS[name], file, DataOptions(folder, judge="rule"), expected_md5=official)


def renamed(example: Example) -> tuple[list[Row], dict[str, str]]:
    """The example's rows with other indexes, and new index by the old."""
    names = {str(row["index"]): ALIKE[i] for i, row in enumerate(example.rows)}
    return [{**row, "index": names[str(row["index"])]} for row in example.rows], names


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - NUMBERED - RENAMED))
def test_scores_and_images_do_not_depend_on_the_form_of_an_index(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    rows, names = renamed(example)
    plain, other = opened(name, tmp_path, example.rows), opened(name, tmp_path, rows)
    assert other.faulty == {}
    for one, two in zip(plain.requests(), other.requests(), strict=True):
        assert names[one.index] == two.index
        for part, same in zip(one.load(), two.load(), strict=True):
            assert part.text == same.text
            assert part.image is None or part.image.tobytes() == same.image.tobytes()
    expected = plain.score(example.answers, tmp_path / "plain")
    score = other.score({names[index]: text for index, text in example.answers.items()}, tmp_path / "other")
    assert (score.value, score.rows, score.unparsed) == (expected.value, expected.rows, expected.unparsed)
    assert score.per_item == {names[index]: credit for index, credit in expected.per_item.items()}
    assert score.parts == {
        part: {names[index]: pair for index, pair in pairs.items()} for part, pairs in expected.parts.items()
    }
    assert score.clusters == {names[index]: names[first] for index, first in expected.clusters.items()}


@pytest.mark.parametrize("names", [ALIKE, ("10", "1_0", "10 ", " 10", "1_0 ")], ids=["some numbers", "one number"])
def test_rows_of_one_number_are_asked_and_scored_apart(names: tuple[str, ...], tmp_path: Path) -> None:
    options = {"question": "Which?", "A": "red", "B": "blue", "category": "Chart"}
    rows = [
        {"index": name, "image": png(i), **options, "answer": "AB"[i % 2], "category": name}
        for i, name in enumerate(names)
    ]
    dataset = opened("seedbench2-plus", tmp_path, rows)
    requests = dataset.requests()
    assert [request.index for request in requests] == list(names)
    assert [request.load()[0].image.getpixel((0, 0))[0] for request in requests] == list(range(len(names)))
    score = dataset.score(dict.fromkeys(names, "A"), tmp_path / "scores")
    assert score.per_item == {name: 1.0 - i % 2 for i, name in enumerate(names)}
    left = dataset.score(dict.fromkeys(names[1:], "A"), tmp_path / "scores", left_out={names[0]: "refused"})
    assert (left.rows, left.per_item) == (len(names) - 1, {n: 1.0 - i % 2 for i, n in enumerate(names) if i})


def test_an_image_is_that_of_the_row_with_the_text_of_the_reference(tmp_path: Path) -> None:
    cells = {"question": "A cat?", "answer": "Yes", "category": "random"}
    rows = [{"index": name, "image": png(i), **cells} for i, name in enumerate(("1", "01"))]
    rows += [{"index": f"to {name}", "image": name, **cells} for name in ("1", "01", "1.0")]
    dataset = opened("pope", tmp_path, rows)
    shown = {request.index: request.load()[0].image.getpixel((0, 0))[0] for request in dataset.requests()}
    assert shown == {"1": 0, "01": 1, "to 1": 0, "to 01": 1}
    assert dataset.faulty == {"to 1.0": "the image refers to row '1.0', which holds no image"}
    score = dataset.score(dict.fromkeys(shown, "Yes"), tmp_path / "scores")
    assert score.clusters == {"1": "1", "to 1": "1", "01": "01", "to 01": "01"}


def test_images_of_mme_are_told_apart_by_the_text_of_their_path(tmp_path: Path) -> None:
    """As numbers, 1 and 1.0 would be one image with four questions."""
    rows: list[Row] = [
        {"index": f"{path}/{i}", "image": png(n), "image_path": path, "question": f"Q{i}?", "answer": answer}
        for n, path in enumerate(("1", "1.0", "01"))
        for i, answer in enumerate(("Yes", "No"))
    ]
    dataset = opened("mme", tmp_path, [row | {"category": "existence"} for row in rows])
    answers = {str(row["index"]): str(row["answer"]) for row in rows} | {"1.0/0": "No"}
    score = dataset.score(answers, tmp_path / "scores")
    assert score.per_item == {"1/0": 1.0, "1.0/0": 0.25, "01/0": 1.0}
    assert score.value == pytest.approx((100 * 5 / 6 + 100 * 2 / 3) / 2)


def test_numbers_of_rotations_are_numbers(tmp_path: Path) -> None:
    """MMBench calculates with them: 0001 is row 1, so a question cannot have both."""
    rows = EXAMPLES["mmbench-en"].rows
    padded = [{**row, "index": f"{row['index']:0>8}"} for row in rows]
    padded = [
        {**row, "image": row["image"] if len(str(row["image"])) > 64 else f"{row['image']:0>8}"} for row in padded
    ]
    score = opened("mmbench-en", tmp_path, padded).score(
        {f"{index:0>8}": text for index, text in EXAMPLES["mmbench-en"].answers.items()}, tmp_path / "scores"
    )
    assert score.per_item == {"00000000": 1.0, "00000001": 0.0}
    twice = opened("mmbench-en", tmp_path, [*rows, {**rows[0], "index": "00"}])
    assert set(twice.faulty) == {"0", "1000000", "2000000", "3000000", "00"}
    assert twice.faulty["00"] == "rows 0, 1000000, 2000000, 3000000, 00 of one question are not different numbers"


def test_questions_may_be_numbered_by_a_column(tmp_path: Path) -> None:
    rows = [{**row, "g_index": int(str(row["index"])) % 1_000_000} for row in EXAMPLES["mmbench-en"].rows]
    ours = [{**row, "index": 3 * i + 5, "g_index": 5 if i < 4 else 17} for i, row in enumerate(rows)]
    ours = [{**row, "image": png(i // 4)} for i, row in enumerate(ours)]
    names = {str(old["index"]): str(new["index"]) for old, new in zip(rows, ours, strict=True)}
    answers = {names[index]: text for index, text in EXAMPLES["mmbench-en"].answers.items()}
    assert opened("mmbench-en", tmp_path, ours).score(answers, tmp_path / "scores").per_item == {"5": 1.0, "17": 0.0}


@pytest.mark.parametrize("index", ["1_2_3_4_5_6", "VD_01_1_0_0_0", "VD_1_1_0_0_0"])
def test_sets_of_figures_are_read_from_the_text(index: str, tmp_path: Path) -> None:
    """The first of these is a whole number for Python."""
    cells = {"image": png(3), "question": "Red?", "answer": "Yes", "category": "VD", "l2-category": "figure"}
    rows = [cells | {"index": index}, cells | {"index": "VD_other_1_9_0_0"}]
    score = opened("hallusionbench", tmp_path, rows).score({index: "Yes", "VD_other_1_9_0_0": "No"}, tmp_path)
    assert score.per_item == {index: 1.0, "VD_other_1_9_0_0": 0.0}
    assert score.value == pytest.approx(50)


def test_rows_without_an_index_have_names_that_no_index_can_be(tmp_path: Path) -> None:
    cells = {"question": "A cat?", "answer": "Yes", "category": "random"}
    indexes = ("row 2", "", "line 3", "3", "3", "row 2 b")
    rows = [{"index": index, "image": png(i), **cells} for i, index in enumerate(indexes)]
    dataset = opened("pope", tmp_path, rows)
    assert dataset.faulty == {
        "row 1": "index 'row 2' is the name of a line, or has other characters than letters, digits and -._/",
        "row 2": "field 'index' is empty",
        "row 3": "index 'line 3' is the name of a line, or has other characters than letters, digits and -._/",
        "row 5": "index '3' occurs more than once",
    }
    assert [request.index for request in dataset.requests()] == ["3", "row 2 b"] and len(dataset) == 6
