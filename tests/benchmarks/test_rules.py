"""Rules of the rule judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.kit_tables import EXAMPLES, Row, write
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.rules import grade, last_value, uncovered
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions


def opened(folder: Path, rows: list[Row], **judge: str) -> KitDataset:
    tsv = write(folder / "mia-bench.tsv", rows)
    return KitDataset("mia-bench", TASKS["mia-bench"], tsv, DataOptions(folder, **judge))


OPEN: dict[str, tuple[str, ...]] = {
    "14": ("14", "14.", "**14**", "14 because of A.", "Figure 3: 14", "so 14cm", "共有14个", r"\boxed{14} of the 20"),
    "7": ("There are 3 and 4, so 7.", "The answer is 7, in total.", r"$7 \mathrm{~cm}^{2}$"),
    "B": (
        "The answer is (B).",
        "B.",
        "option B",
        "选B",
        "答案：B",
        "（Ｂ）",
        r"\boxed{\text{B}}",
        "b",
        "Is A circle B",
    ),
    "?": ("word K7P", "I do not know", "", "A circle", r"4\sqrt{3}", r"2\pi", "2024/11/27", "the 3rd"),
}


@pytest.mark.parametrize(("answer", "text"), [(answer, text) for answer, texts in OPEN.items() for text in texts])
def test_a_question_without_options_has_the_last_number_else_the_last_letter(answer, text):
    assert last_value({"prediction": text}) == answer
    assert last_value({"prediction": text, "choices": "[]"}) == answer


@pytest.mark.parametrize(
    ("text", "answer_type", "answer"),
    [
        *[("$72.00", "integer", "72"), ("72.0", "integer", "72"), ("7.2e1", "integer", "72"), ("72", "integer", "72")],
        *[
            ("1,072", "integer", "1072"),
            ("−72", "integer", "-72"),
            ("72.5", "integer", "72.5"),
            ("144/2", "integer", "72"),
        ],
        *[("1/2", "float", "0.5"), ("3½ kg", "float", "3.5"), ("0.50", "float", "0.5"), ("3×10⁴", "float", "30000.0")],
        *[
            ("1e999", "float", "1e999"),
            ("1e999", "integer", "1e999"),
            ("2:1", "integer", "2:1"),
            ("two", "integer", "?"),
        ],
    ],
)
def test_numbers_have_the_form_of_their_type(text, answer_type, answer):
    assert last_value({"prediction": text, "choices": "", "answer_type": answer_type}) == answer


CHOICES: tuple[tuple[tuple[str, ...], dict[str, tuple[str, ...]]], ...] = (
    (
        ("Yes", "No"),
        {
            "A": ("Yes, there is no gap.", "There are more, so yes.", "**Yes**", "(A)", "A. Yes"),
            "B": ("The answer is No.", "no", "答案是：No", "B", r"\boxed{No}", "No; yes would need more."),
            "?": ("I cannot say", "nothing", "yesterday", "C", ""),
        },
    ),
    (
        ("3", "4", "5"),
        {
            "A": ("The answer is A", "3.0", "the answer is three, 3cm", r"\frac{6}{2}"),
            "B": ("(B) because 5 > 4", "Option B: 4", "选B", "答案是（B）", "B) 4", "the answer is 4.", "A or B", "b"),
            "C": ("A circle has 5", "Triangle A has 3 sides, so 5.", "is A circle with 5", r"$\boxed{\text{C}}$"),
            "?": ("15", "4.5", "D", "A4"),
        },
    ),
    (
        (r"$6 \mathrm{~m}$", r"$\frac{3}{8} \mathrm{~m}$", "$120^{\\circ}$"),
        {"A": ("it is 6 m", "6m", "6"), "B": (r"\frac38 m", "0.375", "⅜"), "C": ("120°", "120 degrees")},
    ),
    (
        (r"$4\sqrt{3}$", r"$\dfrac{\sqrt{3}}{2}$", r"$2\pi$", "50%"),
        {"A": ("4 √3 cm", r"so $4 \sqrt{3}$.", "4 sqrt(3)"), "B": (r"\frac{\sqrt{3}}{2}", r"$\frac{\sqrt 3}{2}$ of it")}
        | {"C": (r"it is 2 \pi", "2π."), "D": (r"50\%", "50 %", "50 percent")},
    ),
    (("blue", "dark blue", "a red  one"), {"B": ("it is dark blue.",), "A": ("Blue",), "C": ("a red one",)}),
)


@pytest.mark.parametrize(
    ("options", "letter", "text"),
    [(options, letter, text) for options, by in CHOICES for letter, texts in by.items() for text in texts],
)
def test_an_option_is_named_or_mentioned_last(options, letter, text):
    assert last_value({"prediction": text, "choices": str(list(options))}) == letter


@pytest.mark.parametrize(
    ("component", "follows", "breaks"),
    [
        ("answer twice", ["red red", "Red, red.", "K7P K7P"], ["red", "red red red", "red blue", ""]),
        ("answer in brackets", ["( red )", "[red]"], ["red", "(red", "()"]),
        ("answer in a sentence.", ["the circle is red.", "It is red!"], ["red.", "the circle is red"]),
        ("answer as a list", ["- red", "1. red\n2. blue", "* a\n\n* b"], ["red", "- red\nblue", ""]),
        ("mention the color red", ["It is Red.", "red red", "是red色"], ["reddish", "blue", ""]),
        ("Mention the shape circle", ["a circle"], ["circles"]),
        ("mention the number 3", ["3 of them"], ["13", "three"]),
    ],
)
def test_every_instruction_has_its_rule(component, follows, breaks):
    row = {"components": str([component]), "component_weight": "[10]"}
    for answer in follows:
        assert grade(row | {"prediction": answer}) == "score of component 1: 1/1, total score: 1/1.", answer
    for answer in breaks:
        assert grade(row | {"prediction": answer}) == "score of component 1: 0/1, total score: 0/1.", answer


def test_an_instruction_without_a_rule_is_refused_before_the_run(tmp_path):
    component = "describe the scene in the style of Hemingway"
    rows = [row | {"components": str([component])} for row in EXAMPLES["mia-bench"].rows[2:]]
    assert uncovered(rows[0]) == [component]
    with pytest.raises(UserError, match=r"no rule for 'describe the scene.*row 2.*--judge URL"):
        opened(tmp_path, rows, judge="rule")
    with pytest.raises(ValueError, match="no rule covers"):
        grade(rows[0] | {"prediction": "x"})
    assert len(opened(tmp_path, rows, judge="http://127.0.0.1:9/v1", judge_model="m")) == 1


def test_weights_need_not_be_whole_numbers():
    row = {
        "components": "['answer twice', 'answer as a list', 'mention the word a']",
        "component_weight": "[2.5, 5, 2.5]",
    }
    assert grade(row | {"prediction": "- a"}).endswith("total score: 3/4.")


def test_mathvista_is_scored_by_rule_as_its_answers_are_written(tmp_path):
    """Through the kit: integers with a currency or decimals, and options that are words."""
    free = EXAMPLES["mathvista"].rows[0]
    choice = EXAMPLES["mathvista"].rows[2]
    yes_no = {"choices": "['Yes', 'No']", "answer": "No", "answer_option": "B"}
    cases: list[tuple[Row, str]] = [
        (free | {"answer": "72"}, "The cost is $72.00."),
        (free | {"answer": "72"}, "总共是72元"),
        (free | {"answer": "-3"}, "so x = −3"),
        (free | {"answer": "0.5", "answer_type": "float"}, r"It is $\frac{1}{2}$ of it."),
        (choice | yes_no, "The answer is No."),
        (choice | yes_no, "No, there is a gap between them, as one can see."),
        (choice, "The ball and the box are shown, and the colour of the ball is blue."),
    ]
    rows = [row | {"index": i} for i, (row, _) in enumerate(cases)]
    tsv = write(tmp_path / "mathvista.tsv", rows)
    data = KitDataset("mathvista", TASKS["mathvista"], tsv, DataOptions(tmp_path, judge="rule"))
    score = data.score({str(i): text for i, (_, text) in enumerate(cases)}, tmp_path)
    assert score.per_item == {str(i): 1.0 for i in range(len(cases))}
    wrong = data.score({str(i): text for i, text in enumerate(["73", "7", "3", "2", "Yes.", "yes", "red"])}, tmp_path)
    assert set(wrong.per_item.values()) == {0.0}
