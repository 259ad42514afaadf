"""Rows that no answer could meet, or an unreadable one would, are faulty; what is scored is the text of the cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.kit_tables import EXAMPLES, Row, png, write
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.table import md5
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions

MISSING = ("None", "NA", "N/A", "n/a", "null", "NULL", "nan", "NaN", "<NA>", "#N/A", "-nan")
"""Texts that pandas takes for a missing value."""
ART = {"split": "validation", "category": "Art", "l2-category": "Arts"}


def opened(name: str, folder: Path, rows: list[Row], *, official: bool = False) -> KitDataset:
    rows = [row | {"index": i, "image": png(i)} for i, row in enumerate(rows)]
    file = write(folder / "own.tsv", rows)
    options = DataOptions(folder, judge="rule")
    return KitDataset(name, TASKS[name], file, options, expected_md5=md5(file) if official else None)


def credits(dataset: KitDataset, folder: Path, answers: list[str]) -> dict[str, float]:
    asked = [request.index for request in dataset.requests()]
    return dict(dataset.score({index: answers[int(index)] for index in asked}, folder / "scores").per_item)


def options(answer: str, *texts: str) -> Row:
    return {"question": "Which?", **dict(zip("ABCD", texts, strict=False)), "answer": answer, "category": "Chart"}


def vista(kind: str, answer: str) -> Row:
    row = next(row for row in EXAMPLES["mathvista"].rows if row["question_type"] == "free_form")
    return {**row, "answer_type": kind, "answer": answer}


def picked(letter: str, choices: str) -> Row:
    row = next(row for row in EXAMPLES["mathvista"].rows if row["question_type"] == "multi_choice")
    return {**row, "answer_option": letter, "choices": choices}


def maths(answer: str, choices: str = "[]") -> Row:
    return {"question": "How many?", "choices": choices, "answer": answer, "category": "counting"}


def read(answer: str) -> Row:
    return {"question": "Read.", "answer": answer, "category": "Digit String Recognition"}


def question(answer: str) -> Row:
    return {"question": "What?", "answer": answer}


NO_OPTION = "the right answer {!r} is not among the options A, B"
UNREAD = "'Z' is VLMEvalKit's mark of an answer that it cannot read"
NEVER = "VLMEvalKit counts no answer as right"
ALWAYS = "VLMEvalKit counts answers that it cannot read as right"
FAULTS = [
    *(
        ("seedbench2-plus", options(gold, "red", "blue"), NO_OPTION.format(gold))
        for gold in ("C", "a", "red", "A.", "A ")
    ),
    ("seedbench2-plus", options("B", "red", " "), "the right answer 'B' is not among the options A"),
    (
        "seedbench2-plus",
        options("Z", "red") | {"Z": "blue"},
        "'Z' is VLMEvalKit's mark of an answer that it cannot read",
    ),
    ("mmbench-en", options("E", "red", "blue") | {"split": "dev", "l2-category": "x"}, NO_OPTION.format("E")),
    ("mmmu", options("red", "red", "blue") | ART, NO_OPTION.format("red")),
    ("mmmu", options("B", "", "blue") | ART, "options B without A"),
    ("mmmu", {**ART, "question": "Which?", "answer": "C"}, NEVER),  # the kit takes C for the letter of an option
    ("mmmu", {**ART, "question": "Which?", "answer": "B cells"}, NEVER),  # read as B, and A is right
    ("mmmu", {**ART, "question": "Which?", "answer": "Z"}, ALWAYS),
    ("mathvista", picked("C", "['red', 'blue']"), NO_OPTION.format("C")),
    ("mathvista", picked("A", "[]"), "0 choices, not 1 to 26"),
    ("mathvista", picked("A", str(list(range(27)))), "27 choices, not 1 to 26"),
    ("mathvista", picked("A", "['?', 'blue']"), ALWAYS),  # the rule judge's reply to an answer without a value
    ("mathvista", vista("integer", "3.5"), NEVER),
    ("mathvista", vista("float", "nan"), NEVER),
    ("mathvista", vista("float", "a few"), NEVER),
    ("mathvista", vista("list", "[2007, 2008]"), NEVER),
    ("mathvista", vista("text", "red"), NEVER),
    ("mathvista", vista("text", "None"), ALWAYS),
    (
        "mathvista",
        vista("integer", "3") | {"question_type": "multiple"},
        "'multiple' is not one that MathVista_MINI scores",
    ),
    ("mathvision", maths("C", "['3', '4']"), NO_OPTION.format("C")),
    ("mathvision", maths("3", "['3', '4']"), NO_OPTION.format("3")),
    ("mathvision", maths("?"), ALWAYS),
    ("ocrbench", read("['', 'x']"), ALWAYS),
    ("ocrbench", read("[' ']"), ALWAYS),
    ("chartqa", question("nan"), NEVER),
    ("chartqa", question("['inf']"), NEVER),
    ("chartqa", question("['', 'x']"), ALWAYS),
    ("gqa", question("['']"), ALWAYS),
    ("textvqa", question("['acme']"), NEVER),  # one person's answer counts if others gave it, too
    ("textvqa", question(str(["the"] * 10)), ALWAYS),  # articles and punctuation are dropped
]


@pytest.mark.parametrize(("name", "row", "reason"), FAULTS)
def test_a_gold_that_no_answer_meets_is_a_fault(name: str, row: Row, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no usable row") as caught:
        opened(name, tmp_path, [row])
    assert reason in str(caught.value)


MET = [
    *(
        ("seedbench2-plus", options("C", "two", "one", gold, "three"), "C")
        for gold in (*MISSING, "007", "1.10", "True")
    ),
    ("seedbench2-plus", options("D", "two", "", "", "three"), "D"),
    ("mmmu", {**ART, "question": "How many?", "answer": "['24', '24.0']"}, "['24', '24.0']"),
    *(("mmmu", {**ART, "question": "How?", "answer": gold}, gold) for gold in MISSING),
    *(
        (name, question(gold), gold)
        for name in ("gqa", "chartqa")
        for gold in (*MISSING[:6], "007", "1.10", "True", "?")
    ),
    *(("textvqa", question(str([gold] * 7 + ["the"] * 3)), gold) for gold in MISSING),
    *(("ocrbench", read(str([gold])), gold) for gold in MISSING),
    ("ocrbench", read("['?']"), "?"),
    ("mathvista", vista("integer", "007"), "7"),
    ("mathvista", vista("float", "1.10"), "1.1"),
    ("mathvista", picked("B", "['red', 'None']"), "B"),
    *(("mathvision", maths("B", f"['3', {gold!r}]"), "B") for gold in MISSING),
    ("mathvision", maths("0012"), "12"),
]


@pytest.mark.parametrize("name", sorted({name for name, _, _ in MET}))
def test_a_row_that_is_run_can_be_right_and_is_wrong_without_an_answer(name: str, tmp_path: Path) -> None:
    """One table per dataset: what a cell is read as does not depend on the rows around it."""
    rows, answers = zip(*((row, answer) for known, row, answer in MET if known == name), strict=True)
    dataset = opened(name, tmp_path, list(rows))
    assert dataset.faulty == {}
    right = credits(dataset, tmp_path, list(answers))
    unread = credits(dataset, tmp_path, [""] * len(rows))
    assert [index for index in right if right[index] <= unread[index]] == []
    assert name == "textvqa" or set(right.values()) == {1.0}


def test_texts_that_pandas_takes_for_missing_are_shown(tmp_path: Path) -> None:
    rows = [options("C", "two", "one", text, "three") | {"hint": text, "question": text} for text in MISSING]
    dataset = opened("scienceqa", tmp_path, rows)
    for request, text in zip(dataset.requests(), MISSING, strict=True):
        shown = request.load()[1].text or ""
        assert shown.startswith(f"Hint: {text}\nQuestion: {text}\nOptions:\nA. two\nB. one\nC. {text}\nD. three\n")
        assert request.raw is not None and request.raw.options["C"] == text and request.raw.hint == text
    assert credits(dataset, tmp_path, ["C"] * len(rows)) == dict.fromkeys(map(str, range(len(rows))), 1.0)


@pytest.mark.parametrize("column", ["C", "answer", "question", "category"])
def test_an_official_row_of_which_the_kit_loses_a_text_is_faulty(column: str, tmp_path: Path) -> None:
    rows = [options("C", "two", "one", "zero", "three") for _ in MISSING]
    changed = [row | {column: text} for row, text in zip(rows, MISSING, strict=True)]
    dataset = opened("seedbench2-plus", tmp_path, [*changed, rows[0]], official=True)
    assert dataset.faulty == {
        str(i): f"VLMEvalKit reads {text!r} in column {column!r} as an empty cell" for i, text in enumerate(MISSING)
    }
    assert [request.index for request in dataset.requests()] == [str(len(MISSING))]


def test_an_official_file_is_shown_as_the_kit_shows_it(tmp_path: Path) -> None:
    """A column of whole numbers with an empty cell is one of decimals for pandas."""
    rows = [options("A", "3", "4"), options("A", "3", "")]
    shown = {official: opened("ai2d", tmp_path, rows, official=official).requests() for official in (False, True)}
    assert "A. 3\nB. 4\n" in (shown[False][0].load()[1].text or "")
    assert "A. 3\nB. 4.0\n" in (shown[True][0].load()[1].text or "")


def test_a_reply_is_judged_whatever_the_replies_to_other_rows(tmp_path: Path) -> None:
    """A TSV between the kit's steps would turn a column of numbers into numbers: "None" and "" are one, 12 is 0012."""
    rows = [maths("None"), maths("7"), maths("0x1F")]
    dataset = opened("mathvision", tmp_path, rows)
    assert credits(dataset, tmp_path, ["", "7", ""]) == {"0": 0.0, "1": 1.0, "2": 0.0}
    alone = opened("pope", tmp_path, [{"question": "A cat?", "answer": "Yes", "category": "007"}])
    score = alone.score({"0": "Yes"}, tmp_path / "pope")
    assert [row["split"] for row in score.details["table"]] == ["Overall", "007"]


def test_columns_that_the_kit_would_take_for_its_own_do_not_reach_it(tmp_path: Path) -> None:
    """It lowers the case of column names: "Prediction" would replace the predictions, "HIT" the marks."""
    own = {"Prediction": "B", "HIT": "0", "GT": "B", "Answer": "B", "image_path": "", "log": "x", "res": "B"}
    dataset = opened("seedbench2-plus", tmp_path, [options("A", "red", "blue") | own])
    assert credits(dataset, tmp_path, ["A"]) == {"0": 1.0}
