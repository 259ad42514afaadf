"""Small tables in the formats of the official files, with predictions and scores computed by hand."""

from __future__ import annotations

from tests.helpers.field_tables import FIELD_EXAMPLES
from tests.helpers.kit_rows import Example, Row, options, png, rows, write

__all__ = ["EXAMPLES", "Example", "Row", "png", "write"]


def _yes_no(category: str, image: str, *answers: str) -> list[Row]:
    shown = {"image": png(len(image)), "image_path": f"{category}/{image}"}
    return [
        {**shown, "question": f"Q{i}? Please answer yes or no.", "answer": a, "category": category}
        for i, a in enumerate(answers)
    ]


def _rotated(number: int, texts: list[str], right: int) -> list[Row]:
    return [
        {
            "index": number + turn * 1_000_000,
            "image": png(number) if turn == 0 else str(number),
            **options("ABCD"[(right - turn) % 4], *(texts[turn:] + texts[:turn])),
            "category": "attribute_recognition",
            "l2-category": "finegrained_perception (instance-level)",
            "split": "dev",
        }
        for turn in range(4)
    ]


def _vista(answer: str, **extra: object) -> Row:
    form = {"question_type": "free_form", "answer_type": "integer", "answer_option": "", "choices": ""}
    row = {"question": "Hint: Answer with an integer.\nQuestion: How many?", "answer": answer, **form, **extra}
    return row | {"task": "figure question answering", "skills": "['arithmetic reasoning']"}


def _instruct(components: list[str], weights: list[int]) -> Row:
    kinds = [f"kind {i}" for i in range(len(components))]
    return {
        "question": "What color is it? " + " ".join(components),
        "num_of_component": len(components),
        "components": str(components),
        "component_weight": str(weights),
        "component_type": str(kinds),
    }


_CHOICE = {"question_type": "multi_choice", "answer_type": "text", "choices": "['red', 'blue']"}
_FORMULA = "Handwritten Mathematical Expression Recognition"
_ART = {"split": "validation", "category": "Art", "l2-category": "Arts"}
_VD = {"category": "VD", "l2-category": "figure"}
_COLORS = ["red", "green", "blue", "black"]
_MMBENCH = Example(
    rows=[*_rotated(0, _COLORS, 0), *_rotated(1, _COLORS, 3)],
    answers={"0": "A", "1000000": "D.", "2000000": "The answer is C", "3000000": "b is wrong, B"}
    | {"1": "D", "1000001": "C", "2000001": "A", "3000001": "A"},  # the third rotation should be B
    value=50.0,
    unparsed=0,
    per_item={"0": 1.0, "1": 0.0},
)

EXAMPLES: dict[str, Example] = {
    "mme": Example(
        rows=rows(
            *_yes_no("existence", "a.png", "Yes", "No"),
            *_yes_no("existence", "bb.png", "Yes", "No"),
            *_yes_no("code_reasoning", "a.png", "Yes", "No"),
        ),
        answers={"0": "Yes", "1": "no.", "2": "Yes, it is", "3": "Yes", "4": "Nope", "5": "No"},
        value=100 * ((75 + 50) + (50 + 0)) / 400,  # accuracy + accuracy of pairs, per category
        unparsed=1,
        per_item={"0": 1.0, "2": 0.25, "4": 0.25},
    ),
    "mmbench-en": _MMBENCH,
    "mmbench-cn": _MMBENCH,
    "mathvista": Example(
        rows=rows(
            _vista("14"),
            _vista("3"),
            _vista("blue", **_CHOICE, answer_option="B"),
            _vista("red", **_CHOICE, answer_option="A"),
            _vista("2"),
        ),
        answers={"0": "There are 13 and one more, 14.", "1": "4", "2": "It is blue", "3": "B", "4": "two"},
        value=40.0,
        unparsed=1,
        per_item={"0": 1.0, "1": 0.0, "2": 1.0, "3": 0.0, "4": 0.0},
    ),
    "mathvision": Example(
        rows=rows(
            {"question": "How much?", "choices": "[]", "answer": r"\frac{1}{2}", "category": "algebra"},
            {"question": "How many?", "choices": "[]", "answer": "7", "category": "counting"},
            {"question": "Which?", "choices": "['3', '4']", "answer": "B", "category": "counting"},
            {"question": "How many?", "choices": "[]", "answer": "5", "category": "counting"},
            {"question": "How many?", "choices": "[]", "answer": "5", "category": "counting"},
        ),
        answers={"0": "0.5", "1": "So there are 7.", "2": "A", "3": "no idea", "4": "A"},
        value=40.0,
        unparsed=1,
        per_item={"0": 1.0, "1": 1.0, "2": 0.0, "3": 0.0, "4": 0.0},
    ),
    "seedbench2-plus": Example(
        rows=rows(
            options("A", "red", "blue", category="Chart"),
            options("B", "red", "blue", category="Map"),
            options("B", "circle", "square", category="Map"),
            options("A", "circle", "square", category="Web"),
        ),
        answers={"0": "A", "1": "it is blue", "2": "A circle", "3": "A or B"},
        value=50.0,
        unparsed=1,
        per_item={"0": 1.0, "1": 1.0, "2": 0.0, "3": 0.0},
    ),
    "ocrbench": Example(
        rows=rows(
            {"question": "Read.", "answer": "['0012']", "category": "Digit String Recognition"},
            {"question": "Read.", "answer": "['7']", "category": "Digit String Recognition"},
            {"question": "Read.", "answer": "['x + 1', 'y']", "category": _FORMULA},
            {"question": "Read.", "answer": "['nan']", "category": "Irregular Text Recognition"},
        ),
        answers={"0": "0012", "1": "8", "2": "x+1", "3": ""},  # a TSV would turn these into 12 and nan
        value=50.0,
        unparsed=1,
        per_item={"0": 1.0, "1": 0.0, "2": 1.0, "3": 0.0},
    ),
    "mia-bench": Example(
        rows=rows(
            _instruct(["mention the color red", "answer twice"], [5, 5]),
            _instruct(["mention the color blue", "answer in brackets", "answer as a list"], [3, 2, 5]),
            _instruct(["answer in a sentence"], [10]),
        ),
        answers={"0": "red red", "1": "(red)", "2": "the circle"},
        value=40.0,  # 1, 0.2 and 0
        unparsed=0,
        per_item={"0": 1.0, "1": 0.2, "2": 0.0},
    ),
    "scienceqa": Example(
        rows=rows(
            options("C", "one", "two", "three", hint="Count.", category="natural science", split="test"),
            options("A", "red", "blue", hint="", category="language science", split="test"),
        ),
        answers={"0": "C.", "1": "blue"},
        value=50.0,
        unparsed=0,
        per_item={"0": 1.0, "1": 0.0},
    ),
    "pope": Example(
        rows=rows(
            {"question": "A cat?", "answer": "Yes", "category": "random,popular,adversarial"},
            {"question": "A dog?", "answer": "No", "category": "random"},
            {"question": "A cup?", "answer": "Yes", "category": "popular"},
            {"question": "A car?", "answer": "No", "category": "adversarial"},
        ),
        answers={"0": "Yes.", "1": "yes", "2": "", "3": "No"},
        value=75.0,  # three true, one false positive, one false negative, over six rows
        unparsed=1,
        per_item={"0": 1.0, "1": 0.0, "2": 0.0, "3": 1.0},
    ),
    "hallusionbench": Example(
        rows=rows(
            {"index": "VD_figure_1_0_0_0", "question": "Red?", "answer": "Yes", **_VD},
            {"index": "VD_figure_1_0_0_1", "question": "Blue?", "answer": "No", **_VD},
            {"index": "VD_figure_1_0_1_0", "question": "Red?", "answer": "No", **_VD},
            {"index": "VD_figure_1_0_1_1", "question": "Blue?", "answer": "Yes", **_VD},
        ),
        answers={
            "VD_figure_1_0_0_0": "Yes",
            "VD_figure_1_0_0_1": "No",
            "VD_figure_1_0_1_0": "No",
            "VD_figure_1_0_1_1": "The answer is yes, not no",
        },
        value=(75 + 50 + 50) / 3,
        unparsed=1,
        per_item={
            "VD_figure_1_0_0_0": 1.0,
            "VD_figure_1_0_0_1": 1.0,
            "VD_figure_1_0_1_0": 1.0,
            "VD_figure_1_0_1_1": 0.0,
        },
    ),
    "mmmu": Example(
        rows=rows(
            options("A", "red", "<image 2>", **_ART)
            | {"question": "Which of <image 1>?", "image": str([png(0), png(1)])},
            options("B", "red", "blue", **_ART) | {"split": "dev"},
            options("B", "red", "blue", **_ART),
            {**_ART, "question": "How many in <image 1>?", "answer": "24"},
            {**_ART, "question": "How many?", "answer": "7"},
        ),
        answers={"0": "A", "2": "A or B", "3": "There are 24 of them.", "4": "None"},
        value=50.0,
        unparsed=2,  # a question without options has its answer as the only option, and "Other Answers"
        per_item={"0": 1.0, "2": 0.0, "3": 1.0, "4": 0.0},
    ),
    "gqa": Example(
        rows=rows(
            {"question": "Is it red?", "answer": "yes"},
            {"question": "What is it?", "answer": "cat"},
            {"question": "What color?", "answer": "red"},
        ),
        answers={"0": "Yes ", "1": "a cat", "2": ""},
        value=100 / 3,
        unparsed=1,
        per_item={"0": 1.0, "1": 0.0, "2": 0.0},
    ),
    "ai2d": Example(
        rows=rows(
            options("C", "leaf", "root", "stem", category="plants"), options("A", "leaf", "root", category="plants")
        ),
        answers={"0": "C. stem", "1": "root"},
        value=50.0,
        unparsed=0,
        per_item={"0": 1.0, "1": 0.0},
    ),
    "textvqa": Example(
        rows=rows(
            {"question": "Brand?", "answer": str(["acme"] * 10)},
            {"question": "Brand?", "answer": str(["acme"] * 2 + ["acme inc"] * 8)},
            {"question": "Number?", "answer": str(["7"] * 9 + ["seven"])},
            {"question": "Brand?", "answer": str(["acme"] * 10)},
        ),
        # 3 of the other nine are full credit; an answer two people gave finds 2 of them eight times, 1 two times.
        answers={"0": "The ACME.", "1": "acme", "2": "seven", "3": ""},
        value=100 * (1 + 0.6 + 1) / 4,
        unparsed=1,
        per_item={"0": 1.0, "1": 0.6, "2": 1.0, "3": 0.0},
    ),
    "chartqa": Example(
        rows=rows(
            {"question": "How much?", "answer": "100", "split": "test_human"},
            {"question": "How much?", "answer": "100", "split": "test_human"},
            {"question": "Which?", "answer": "France", "split": "test_augmented"},
            {"question": "Share?", "answer": "0.5", "split": "test_augmented"},
            {"question": "Which years?", "answer": "[1990, 2010]", "split": "test_human"},
        ),
        answers={"0": "104.9", "1": "105.1", "2": "france ", "3": "50%", "4": "2010"},
        value=80.0,  # five per cent of tolerance; one of several answers is enough
        unparsed=0,
        per_item={"0": 1.0, "1": 0.0, "2": 1.0, "3": 1.0, "4": 1.0},
    ),
}
EXAMPLES |= {
    "mmbench-en-v1.0": EXAMPLES["mmbench-en"],
    "mmbench-cn-v1.0": EXAMPLES["mmbench-cn"],
    "mathvision-mini": EXAMPLES["mathvision"],
    **FIELD_EXAMPLES,
}
"""Every registered dataset has one."""
