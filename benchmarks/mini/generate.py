"""The mini suite's tables: ten small datasets of drawn scenes, in the columns of the ten real ones.

Every table depends on its name and `SEED` only, and holds scenes of the evaluation split only, which training never
draws (see `uniprune.synthetic`).
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from uniprune.synthetic import COLORS, SHAPES, Layout, Question, ask, render, sample_layout

VERSION = "2"
"""Raised whenever a table changes, so that scores of different tables are never mixed."""
SEED = 20261121

Row = dict[str, Any]
Rng = np.random.Generator

_YES_NO = "Please answer yes or no."
_INTEGER = (
    "Hint: Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, "
    "at the end."
)
_LETTER = "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."


def write(name: str, file: Path) -> None:
    """Write the table `name` ("pope", "mme", …) as TSV, atomically."""
    rows = [{"index": i} | row for i, row in enumerate(TABLES[name](np.random.default_rng((SEED, *name.encode()))))]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".partial-{id(rows)}")
    with partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, delimiter="\t", lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(file)


# --- pieces -----------------------------------------------------------------------------------------------------
def _scene(rng: Rng, crowded: bool = False) -> tuple[Layout, str]:
    """Draw a held-out layout and its image.

    `crowded` ones hold the longest word, a sum and at least four objects: more than one visual token in nine can
    represent, so that reading needs more than the most diverse tokens.
    """
    if crowded:
        layout = sample_layout(rng, held_out=True, objects=(4, 6), letters=(6, 6), word=1, sum_=1)
    else:
        layout = sample_layout(rng, held_out=True)
    return layout, _png(layout, rng)


def _png(layout: Layout, rng: Rng) -> str:
    """Render a layout as base64 PNG."""
    stream = io.BytesIO()
    render(layout, rng).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def _asked(rng: Rng, kinds: Sequence[str], count: int, crowded: bool = False) -> Iterator[tuple[Question, str]]:
    """Draw `count` questions about as many images, the kinds in turn."""
    for number in range(count):
        kind = kinds[number % len(kinds)]
        while True:
            layout, image = _scene(rng, crowded)
            question = ask(kind, layout, rng)
            if question is not None:
                yield question, image
                break


def _lettered(options: Sequence[str]) -> dict[str, str]:
    return dict(zip("ABCDE", options, strict=False))


# --- the ten tables ---------------------------------------------------------------------------------------------
def _mme(rng: Rng) -> Iterator[Row]:
    kinds = {
        "existence": "exists",
        "color": "attribute",
        "count": "count-check",
        "OCR": "word-check",
        "numerical_calculation": "sum-check",
    }
    for category, kind in kinds.items():
        for number in range(14):
            pair: list[Question | None] = [None]
            while None in pair:
                layout, image = _scene(rng)
                pair = [ask(kind, layout, rng, yes=True), ask(kind, layout, rng, yes=False)]
            for question in pair:
                assert question is not None
                yield {
                    "image": image,
                    "image_path": f"{category}/{number:04d}.png",
                    "question": f"{question.text} {_YES_NO}",
                    "answer": question.answer,
                    "category": category,
                }


def _mmbench(rng: Rng) -> Iterator[Row]:
    """Circular: every question four times, its options rotated; copies k are numbered index + k 10^6."""
    categories = {
        "color-of": "attribute_recognition",
        "shape-of": "object_localization",
        "count": "attribute_comparison",
    }
    for number, (question, image) in enumerate(_asked(rng, list(categories), 36)):
        options, letter = question.options(rng)
        for turn in range(4):
            rotated = options[turn:] + options[:turn]
            yield {
                "index": number + turn * 1_000_000,
                "image": image if turn == 0 else str(number),
                "question": question.text,
                "hint": "",
                **_lettered(rotated),
                "answer": "ABCD"[("ABCD".index(letter) - turn) % 4],
                "category": categories[question.kind],
                "l2-category": "finegrained_perception (instance-level)",
                "split": "dev",
            }


def _mathvista(rng: Rng) -> Iterator[Row]:
    for question, image in _asked(rng, ["count", "sum", "count", "count", "sum"], 100):
        row: Row = {"image": image, "task": "figure question answering", "skills": "['arithmetic reasoning']"}
        if rng.random() < 0.3:
            options, letter = question.options(rng)
            choices = "\n".join(f"({k}) {o}" for k, o in _lettered(options).items())
            row |= {
                "question": f"{_LETTER}\nQuestion: {question.text}\nChoices:\n{choices}",
                "question_type": "multi_choice",
                "answer_type": "text",
                "answer_option": letter,
                "choices": str(options),
            }
        else:
            row |= {
                "question": f"{_INTEGER}\nQuestion: {question.text}",
                "question_type": "free_form",
                "answer_type": "integer",
                "answer_option": "",
                "choices": "",
            }
        yield row | {"answer": question.answer}


def _mathvision(rng: Rng) -> Iterator[Row]:
    categories = {"count": "counting", "sum": "arithmetic"}
    for question, image in _asked(rng, ["sum", "count", "count"], 100):
        yield {
            "image": image,
            "question": question.text,
            "choices": "[]",
            "answer": question.answer,
            "category": categories[question.kind],
        }


def _seedbench2_plus(rng: Rng) -> Iterator[Row]:
    for number, (question, image) in enumerate(_asked(rng, ["character"], 100, crowded=True)):
        options, letter = question.options(rng)
        yield {
            "image": image,
            "question": question.text,
            **_lettered(options),
            "answer": letter,
            "category": ("Chart", "Map", "Web")[number % 3],
        }


def _ocrbench(rng: Rng) -> Iterator[Row]:
    for question, image in _asked(rng, ["read"], 100, crowded=True):
        digits = question.answer.isdecimal()
        yield {
            "image": image,
            "question": question.text,
            "answer": str([question.answer]),
            "category": "Digit String Recognition" if digits else "Non-Semantic Text Recognition",
        }


def _mia_bench(rng: Rng) -> Iterator[Row]:
    for plain, image in _asked(rng, ["color-of", "shape-of"], 80):
        question = plain.instructed(rng)
        what = "color" if plain.kind == "color-of" else "shape"
        form = question.text.removeprefix(plain.text).strip().rstrip(".").lower()
        yield {
            "image": image,
            "question": question.text,
            "num_of_component": 2,
            "components": str([f"mention the {what} {plain.answer}", form]),
            "component_weight": "[5, 5]",
            "component_type": "['mention', 'format']",
        }


def _scienceqa(rng: Rng) -> Iterator[Row]:
    categories = {"shape-of": "natural science", "color-of": "language science", "count": "social science"}
    for question, image in _asked(rng, list(categories), 100):
        options, letter = question.options(rng, int(rng.integers(2, 6)))
        yield {
            "image": image,
            "question": question.text,
            "hint": "",
            **_lettered(options),
            "answer": letter,
            "category": categories[question.kind],
            "split": "test",
        }


def _pope(rng: Rng) -> Iterator[Row]:
    """Per image: one object that is present, and absent ones: any, a popular one, a half true (adversarial) one."""
    for _ in range(30):
        layout, image = _scene(rng)
        pairs = {(o.shape, o.color) for o in layout.objects}
        absent = [(s, c) for s in SHAPES for c in COLORS if (s, c) not in pairs]
        half_true = [p for p in absent if any(p[0] == s or p[1] == c for s, c in pairs)]
        popular = [p for p in absent if p[0] in ("circle", "square")] or absent
        there = sorted(pairs)[rng.integers(len(pairs))]
        asked = [("random,popular,adversarial", there, "Yes")]
        for category, pool in (("random", absent), ("popular", popular), ("adversarial", half_true or absent)):
            asked.append((category, pool[rng.integers(len(pool))], "No"))
        for category, (shape, color), answer in asked:
            text = f"Is there a {color} {shape} in the image?"
            yield {"image": image, "question": text, "answer": answer, "category": category}


def _hallusionbench(rng: Rng) -> Iterator[Row]:
    """Per set: an image and the same image with one object recoloured, so that each question changes its answer."""
    done = 0
    while done < 24:
        layout = sample_layout(rng, held_out=True)
        single = [i for i, o in enumerate(layout.objects) if layout.count(shape=o.shape) == 1]
        if not single:
            continue
        place = single[rng.integers(len(single))]
        target = layout.objects[place]
        others = [c for c in COLORS if c != target.color]
        color = others[rng.integers(len(others))]
        objects = list(layout.objects)
        objects[place] = replace(target, color=color)
        altered = replace(layout, objects=tuple(objects))
        if not altered.held_out:
            continue
        questions = (f"Is the {target.shape} {target.color}?", f"Is there a {color} {target.shape} in the image?")
        for figure, shown in enumerate((layout, altered)):
            image = _png(shown, rng)
            for number, text in enumerate(questions):
                yield {
                    "index": f"VD_figure_1_{done}_{figure}_{number}",
                    "image": image,
                    "question": text,
                    "answer": "Yes" if figure == number else "No",
                    "category": "VD",
                    "l2-category": "figure",
                }
        done += 1


TABLES: dict[str, Callable[[Rng], Iterator[Row]]] = {
    "mme": _mme,
    "mmbench": _mmbench,
    "mathvista": _mathvista,
    "mathvision": _mathvision,
    "seedbench2-plus": _seedbench2_plus,
    "ocrbench": _ocrbench,
    "mia-bench": _mia_bench,
    "scienceqa": _scienceqa,
    "pope": _pope,
    "hallusionbench": _hallusionbench,
}
"""Name of each table (without "mini-") -> generator of its rows."""
