"""Rules of the rule judge, and equality of mathematical answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.kit_tables import EXAMPLES, Row, write
from uniprune.benchmarks._kit.boot import boot
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.equality import is_equal
from uniprune.benchmarks._kit.rules import grade, last_value, uncovered
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions


def opened(folder: Path, rows: list[Row], **judge: str) -> KitDataset:
    tsv = write(folder / "mia-bench.tsv", rows)
    return KitDataset("mia-bench", TASKS["mia-bench"], tsv, DataOptions(folder, **judge))


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("14", "14"),
        ("There are 3 and 4, so 7.", "7"),
        ("The answer is (B).", "B"),
        ("A circle has 1,234.5 points", "1234.5"),
        ("-3 degrees", "-3"),
        ("x = .5", ".5"),
        ("2/3 of it", "2/3"),
        ("3-4", "4"),
        ("word K7P", "?"),
        ("I do not know", "?"),
        ("", "?"),
    ],
)
def test_last_number_or_letter(answer, value):
    assert last_value({"prediction": answer}) == value


@pytest.mark.parametrize(
    ("component", "follows", "breaks"),
    [
        ("answer twice", ["red red", "Red, red.", "K7P K7P"], ["red", "red red red", "red blue", ""]),
        ("answer in brackets", ["( red )", "[red]"], ["red", "(red", "()"]),
        ("answer in a sentence.", ["the circle is red.", "It is red!"], ["red.", "the circle is red"]),
        ("answer as a list", ["- red", "1. red\n2. blue", "* a\n\n* b"], ["red", "- red\nblue", ""]),
        ("mention the color red", ["It is Red.", "red red"], ["reddish", "blue", ""]),
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


PAIRS = [
    *[("5", "5"), ("5.0", "5"), ("1/2", "0.5"), ("x", "X"), ("x+1", "1+x"), ("", ""), ("", "5"), ("five", "5")],
    *[(r"\frac{1}{2}", "0.5"), (r"\frac{1}{2}", r"\dfrac{2}{4}"), (r"3\frac{1}{2}", "3.5"), (r"\frac{12}{2}", "6")],
    *[("2^3", "8"), ("2**3", "8"), ("2^{10}", "1024"), ("2^{-1}", "0.5"), (r"3\times 4", "12"), ("05", "5")],
    *[
        ("1,000", "1000"),
        ("-3", "-3.0"),
        ("--5", "5"),
        ("3 cm", "3"),
        ("$3$", "3"),
        (r"30^\circ", "30"),
        ("50%", "0.5"),
    ],
    *[("(2, 3)", "(2,3)"), ("(1+2)*3", "9"), ("1e3", "1000"), ("0.333333", "1/3"), ("0.3333", "1/3"), ("1/0", "5")],
    *[
        (r"\left(3\right)", "3"),
        (r"\text{3}", "3"),
        ("1:2", "0.5"),
        ("x=3", "3"),
        (r"2\pi", r"2\pi"),
        (r"2\pi", "6.28318531"),
    ],
]


@pytest.mark.parametrize(("answer", "truth"), PAIRS)
def test_equality_is_the_kits(answer, truth):
    assert is_equal(answer, truth) == boot().mathv.is_equal(answer, truth)


def test_equality_never_runs_the_answer():
    assert boot().mathv.is_equal("A", "5")  # the kit's slip: `a` is its own variable for the truth
    assert not is_equal("A", "5")
    assert not is_equal("abs(-3)", "3")
    assert not is_equal("9**9**9**9", "1")
    assert not is_equal("(" * 90 + "1", "1") and not is_equal("-" * 5000 + "1", "1")
