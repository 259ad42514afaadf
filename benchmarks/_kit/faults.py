"""Faults for which a row of a dataset, or rows scored together, cannot be run or scored.

Every `…_fault` returns the fault as text, or None.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

Row = Mapping[str, Any]

_MARKER = re.compile(r"<image (?:([1-9])>)?")
"""Mark for an image in the text of a question that has several."""


def filled(cell: object) -> bool:
    """Check whether a cell, read as text, holds something (cells missing at the end of a line are NaN)."""
    return isinstance(cell, str) and bool(cell.strip())


def pair_fault(rows: Sequence[Row]) -> str | None:
    """MME scores the two questions about an image together."""
    return None if len(rows) == 2 else f"{len(rows)} rows share this image and category; MME scores pairs"


def matched_fault(rows: Sequence[Row]) -> str | None:
    """MMVP scores pairs of rows with one question."""
    return f"{len(rows)} rows have this question; MMVP scores pairs" if len(rows) % 2 else None


def question_index(row: Row) -> str:
    """Return the index of a rotation's question, by the kit's rule."""
    return str(int(row["g_index"])) if filled(row.get("g_index")) else str(int(row["index"]) % 1_000_000)


def unrotated(row: Row) -> bool:
    """Check whether a row is the form of a question that MMBench files all its rotations under."""
    return str(int(row["index"])) == question_index(row)


def rotation_fault(rows: Sequence[Row]) -> str | None:
    """MMBench scores the rotations of a question's options together; their indexes are numbers, one of each."""
    if len({int(row["index"]) for row in rows}) < len(rows):
        return f"rows {', '.join(row['index'] for row in rows)} of one question are not different numbers"
    if any(map(unrotated, rows)):
        return None
    return f"row {question_index(rows[0])}, the unrotated form of the question, is missing"


def figure_set(row: Row) -> str:
    """Return the set of HallusionBench that a row belongs to, by the kit's rule: questions about the same figures.

    Raises:
        ValueError: the index does not name it.
    """
    if reason := figure_fault(row):
        raise ValueError(reason)
    return "_".join([str(row["l2-category"]), row["index"].split("_")[3]])


def figure_fault(row: Row) -> str | None:
    """A row of HallusionBench has an index that names its set, figure and question."""
    return None if row["index"].count("_") >= 5 else "the index has no set, figure and question number"


def figure_label(row: Row, place: int) -> str:
    """Return an index of HallusionBench with a row's set, figure and question, and nothing else of the file's."""
    return "_".join(["row", str(place), "", *row["index"].split("_")[3:6]])


def shown(row: Row) -> dict[str, str]:
    """Return the options of a multiple-choice row by their letters."""
    return {letter: row[letter] for letter in ascii_uppercase if filled(row.get(letter))}


def choice_fault(row: Row) -> str | None:
    """A multiple-choice row has options, and its answer is the letter of one."""
    options = shown(row)
    return letter_fault(row["answer"], options) if options else "no answer option"


def letter_fault(answer: str, letters: Collection[str]) -> str | None:
    """The right answer is the letter of an option; the kit writes "Z" for an answer that it cannot read."""
    if answer not in letters:
        return f"the right answer {answer!r} is not among the options {', '.join(letters)}"
    return "the right answer 'Z' is VLMEvalKit's mark of an answer that it cannot read" if answer == "Z" else None


def open_fault(row: Row) -> str | None:
    """A row of MMMU has an option A and is multiple choice, or has no options; marks for images are well-formed."""
    options = shown(row)
    if options and "A" not in options:
        return f"options {', '.join(options)} without A"
    return (choice_fault(row) if options else None) or marker_fault(row)


def rotated_fault(row: Row) -> str | None:
    """A row of MMBench has options, and numbers that name the question it rotates."""
    named = {name: row[name] for name in ("index", "g_index") if filled(row.get(name))}
    wrong = [f"{name} {value!r}" for name, value in named.items() if not value.isdecimal()]
    return f"{wrong[0]} is not a whole number" if wrong else choice_fault(row)


def vista_fault(row: Row) -> str | None:
    """A multiple-choice row of MathVista has a list of choices and the letter of the right one; skills are texts."""
    if reason := texts_fault("skills", row["skills"]):
        return reason
    if row["question_type"] != "multi_choice":
        return None
    if not filled(row.get("answer_option")):
        return "field 'answer_option' is empty"
    return literal_fault("choices", row.get("choices")) or listed_fault(row["answer_option"], row["choices"])


def vision_fault(row: Row) -> str | None:
    """The answer of a multiple-choice row of MathVision is the letter of one of its choices."""
    return None if literal(row["choices"]) == [] else listed_fault(row["answer"], row["choices"])


def listed_fault(answer: str, choices: str) -> str | None:
    """The right answer is the letter of an element of a list, lettered from A."""
    elements = literal(choices)
    count = len(elements) if isinstance(elements, list) else 0
    if not 0 < count <= len(ascii_uppercase):
        return f"{count} choices, not 1 to {len(ascii_uppercase)}"
    return letter_fault(answer, tuple(ascii_uppercase[:count]))


def mia_fault(row: Row) -> str | None:
    """Instructions, weights and kinds of MIA-Bench are lists of one length."""
    texts, weights, types = (ast.literal_eval(row[f"component{end}"]) for end in ("s", "_weight", "_type"))
    counts = {len(texts), len(weights), len(types)}
    if not 1 <= len(texts) <= 5 or len(counts) > 1 or row["num_of_component"].removesuffix(".0") != str(len(texts)):
        return "components, weights, types and num_of_component disagree, or are not 1 to 5"
    if not all(isinstance(entry, str) for entry in (*texts, *types)):
        return "components and component types must be texts"
    return None if all(isinstance(w, int | float) and w > 0 for w in weights) else "component weights must be positive"


def answers_fault(row: Row) -> str | None:
    """The correct answer is plain text, or a list of texts that are all correct."""
    return texts_fault("answer", row["answer"]) or no_answer_fault(row)


def crowd_fault(row: Row) -> str | None:
    """The answers of people, of VizWiz, are a list of texts; with a single one none has a second that agrees."""
    return texts_fault("answers", row["answers"])


def texts_fault(name: str, text: str) -> str | None:
    """A field that is a list is one of texts."""
    elements = literal(text)
    if isinstance(elements, list) and not all(isinstance(element, str) for element in elements):
        return f"the elements of field {name!r} are not all texts"
    return None


def no_answer_fault(row: Row) -> str | None:
    """The correct answer is plain text, or a list of at least one."""
    return "the list of answers is empty" if literal(row["answer"]) == [] else None


def marker_fault(row: Row) -> str | None:
    """Every mark for an image in the text has the form that the kit reads."""
    return None if all(_marks(row)) else "a mark for an image is not of the form '<image 1>'"


def images_named(row: Row) -> int:
    """Return the number of images a row must have for the marks in its text."""
    return max((int(mark) for mark in _marks(row) if mark), default=0)


def _marks(row: Row) -> list[str]:
    """Find the numbers of the images named in a row's text; empty where the mark is malformed."""
    return [mark for name in ("hint", "question", *ascii_uppercase) for mark in _MARKER.findall(str(row.get(name, "")))]


def literal_fault(name: str, text: object) -> str | None:
    """A field is a list literal: the kit runs `eval` on it, so nothing else may reach it."""
    return None if is_literal(text, list) else f"field {name!r} is not a list literal"


def is_literal(text: object, kind: type) -> bool:
    """Check whether a text is a literal of a type, like the kit's `istype`, but without evaluating it as code."""
    return isinstance(literal(text), kind)


def literal(text: object) -> object:
    """Return the value of a Python literal; None for anything else."""
    try:
        return ast.literal_eval(str(text))
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
