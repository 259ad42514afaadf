"""Tables of the suite `field`, with predictions and scores computed by hand."""

from __future__ import annotations

from tests.helpers.kit_rows import Example, Row, options, png, rows

_HARD = {"category": "Art", "split": "test"}


def _cycled(cycle: int, answer: str, *texts: str, category: str = "single") -> Row:
    return options(answer, *texts, category=category, cycle_category=cycle) | {"image": png(len(category))}


def _pair(question: str, *answers: str) -> list[Row]:
    return [options(answer, "left", "right") | {"question": question} for answer in answers]


def _boxed(category: str, index: int, box: list[float]) -> Row:
    phrase = "Please provide the bounding box coordinate of the region this sentence describes: <ref>man</ref>"
    return {"index": index, "category": category, "question": phrase, "answer": str(box), "width": 16, "height": 12}


_HRBENCH = Example(
    rows=rows(
        _cycled(0, "A", "red", "blue"),
        _cycled(0, "B", "red", "blue", category="cross"),
        _cycled(0, "B", "cat", "dog", category="cross"),
        _cycled(1, "B", "blue", "red"),
        _cycled(1, "A", "blue", "red", category="cross"),
    ),
    answers={"0": "A", "1": "It is blue", "2": "cat", "3": "B.", "4": "A or B"},
    value=100 * (2 / 3 + 1 / 2) / 2,  # per order of the options, then their mean
    unparsed=1,
    per_item={"0": 1.0, "1": 1.0, "2": 0.0, "3": 1.0, "4": 0.0},
)

FIELD_EXAMPLES: dict[str, Example] = {
    "mmstar": Example(
        rows=rows(
            options("C", "one", "two", "three", category="math"),
            options("A", "red", "blue", category="coarse perception"),
            options("B", "红色", "蓝色", category="coarse perception"),
        ),
        answers={"0": "(C)", "1": "the blue one", "2": "蓝色"},
        value=200 / 3,
        unparsed=0,
        per_item={"0": 1.0, "1": 0.0, "2": 1.0},
    ),
    "realworldqa": Example(
        rows=rows(options("B", "Yes", "No"), options("A", "one", "two", "three"), options("A", "left", "right")),
        answers={"0": "B", "1": "two", "2": ""},
        value=100 / 3,
        unparsed=1,
        per_item={"0": 1.0, "1": 0.0, "2": 0.0},
    ),
    "seedbench-image": Example(
        rows=rows(
            options("D", "one", "two", "three", "four", category="Instances Counting"),
            options("A", "red", "blue", category="Instance Attribute"),
        ),
        answers={"0": "D. four", "1": "B"},
        value=50.0,
        unparsed=0,
        per_item={"0": 1.0, "1": 0.0},
    ),
    "blink": Example(
        rows=rows(
            options("B", "left", "right", category="Jigsaw") | {"image": str([png(0), png(1)])},
            options("A", "yes", "no", category="Visual_Similarity") | {"image": str([png(5), png(6), png(7)])},
            options("C", "one", "two", "three", category="Counting"),
        ),
        answers={"0": "the right image", "1": "A", "2": "I see no picture at all, so sorry."},
        value=200 / 3,
        unparsed=1,
        per_item={"0": 1.0, "1": 1.0, "2": 0.0},
    ),
    "hrbench-4k": _HRBENCH,
    "hrbench-8k": _HRBENCH,
    "mmvp": Example(
        rows=rows(
            *_pair("Which way does it look?", "A", "B"),
            *_pair("Is it open?", "B", "A"),
            *_pair("Which way does it look?", "B", "A"),
        ),
        answers={"0": "A", "1": "right", "2": "B", "3": "B", "4": "maybe", "5": "A"},
        value=100 / 3,
        unparsed=1,
        per_item={"0": 1.0, "2": 0.0, "4": 0.0},
    ),
    "mmmu-pro": Example(
        rows=rows(
            options("J", *"abcdefghij", **_HARD) | dict(zip("EFGHIJ", "efghij", strict=True)),
            options("A", "red", "<image 2>", **_HARD)
            | {"question": "Which of <image 1>?", "image": str([png(0), png(1)])},
            options("B", "red", "blue", **_HARD),
        ),
        answers={"0": "J", "1": "A", "2": "A or B"},
        value=200 / 3,
        unparsed=1,
        per_item={"0": 1.0, "1": 1.0, "2": 0.0},
    ),
    "mmmu-pro-vision": Example(
        rows=[
            {k: v for k, v in row.items() if k != "question"}
            for row in rows(options("B", "red", "blue", **_HARD), options("A", "red", "blue", **_HARD))
        ],
        answers={"0": "B", "1": "blue"},
        value=50.0,
        unparsed=0,
        per_item={"0": 1.0, "1": 0.0},
    ),
    "vizwiz": Example(
        rows=rows(
            {"question": "What is it?", "answers": str(["soup"] * 4 + ["can of soup"] * 6)},
            {"question": "What does it show?", "answers": str(["unanswerable"] * 9 + ["blurred"])},
            {"question": "Which color?", "answers": str(["red"] * 10)},
        ),
        answers={"0": "Soup.", "1": "blurred", "2": ""},
        value=130 / 3,  # 3 of the other nine are full credit; nine times 1 of them is a third
        unparsed=1,
        per_item={"0": 1.0, "1": 0.3, "2": 0.0},
    ),
    "docvqa": Example(
        rows=rows(
            {"question": "Who signed?", "answer": "['J. Smith', 'Smith']"},
            {"question": "Which date?", "answer": "['12 May 1999']"},
            {"question": "Which total?", "answer": "['$45.20']"},
        ),
        answers={"0": "smith", "1": "12 May 1998", "2": "I cannot read it"},
        value=100 * (1 + 10 / 11) / 3,  # one of eleven characters differs; below a half is nothing
        unparsed=0,
        per_item={"0": 1.0, "1": 10 / 11, "2": 0.0},
    ),
    "infovqa": Example(
        rows=rows(
            {"question": "How many?", "answer": "['25%']"},
            {"question": "Which?", "answer": "Facebook"},
            {"question": "Which?", "answer": "['Twitter']"},
        ),
        answers={"0": "25", "1": "facebook ", "2": ""},
        value=100 * (2 / 3 + 1) / 3,  # one of three characters is missing; neither case nor blanks around count
        unparsed=1,
        per_item={"0": 2 / 3, "1": 1.0, "2": 0.0},
    ),
    "refcoco": Example(
        rows=rows(
            _boxed("RefCOCO val", 0, [0.0, 0.0, 0.5, 0.5]),
            _boxed("RefCOCO val", 1, [0.5, 0.5, 1.0, 1.0]),
            _boxed("RefCOCO+ testA", 0, [0.25, 0.25, 0.75, 0.75])
            | {"bbox_x1": 4, "bbox_y1": 3, "bbox_x2": 12, "bbox_y2": 9},
            _boxed("RefCOCOg test", 0, [0.0, 0.0, 0.5, 0.5]),
        ),
        answers={
            "RefCOCO_val_0": "The box is [0, 0, 500, 490].",  # thousandths
            "RefCOCO_val_1": "<box>(500,500),(1000,700)</box>",  # two fifths of the box
            "RefCOCO+_testA_0": '{"bbox_2d": [0.25, 0.25, 0.75, 0.8]}',
            "RefCOCOg_test_0": "I see no man in 2 of 3.",
        },
        value=100 * (1 / 2 + 1 + 0) / 3,  # per split, then their mean
        unparsed=1,
        per_item={"RefCOCO_val_0": 1.0, "RefCOCO_val_1": 0.0, "RefCOCO+_testA_0": 1.0, "RefCOCOg_test_0": 0.0},
    ),
    "mm-vet": Example(
        rows=rows(
            {"question": "What is x?", "answer": "-1<AND>-5", "category": "ocr,math"},
            {"question": "Where?", "answer": "on the left<OR>left", "category": "rec,spat"},
            {"question": "What is it?", "answer": "tomato", "category": "rec,know,gen"},
            {"question": "What is it?", "answer": "tomato", "category": "rec,know,gen"},
        ),
        answers={"0": "x = -1", "1": "It is Left of it.", "2": "tomatoes", "3": ""},
        value=37.5,
        unparsed=0,
        per_item={"0": 0.5, "1": 1.0, "2": 0.0, "3": 0.0},
    ),
    "llava-bench": Example(
        rows=rows(
            {"question": "What is it?", "gpt4_ans": "A red circle.", "caption": "A circle.", "category": "conv"},
            {"question": "Describe it.", "gpt4_ans": "blue", "caption": "A circle.", "category": "detail"},
            {"question": "Why?", "gpt4_ans": "blue", "caption": "A circle.", "category": "complex"},
        ),
        answers={"0": "It is a red circle, I think.", "1": "red", "2": ""},
        value=100 * (10 + 1 + 1) / 30,
        unparsed=0,
        per_item={"0": 1.0, "1": 0.1, "2": 0.1},
    ),
}
"""Every dataset of the suite has one."""
