"""Right answers that VLMEvalKit can count as right: credit of one answer to one row, by the kit's own rules.

A row is worth asking only if some answer to it earns more than an answer that cannot be read. `gold_fault` finds the
others by trying the right answers of the data file, word for word.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from .faults import Row, literal, shown
from .items import contains
from .rules import NOTHING

if TYPE_CHECKING:
    from .boot import Kit

UNREAD = ("", NOTHING)
"""Answers without content: of a model, and of the rule judge about one."""


@dataclass(frozen=True)
class Gold:
    """Right answers of a row, and the kit's rule for one answer.

    Attributes:
        answers: texts in the row, each of which should be right.
        credit: credit of one answer to a row, above 0 if it is right or partly right.
        unread: answers that must earn less.
    """

    answers: Callable[[Row], Sequence[str]]
    credit: Callable[[Kit, Row, str], float]
    unread: Sequence[str] = UNREAD[:1]


def gold_fault(kit: Kit, row: Row, gold: Gold) -> str | None:
    """Some right answer earns more than one that cannot be read."""
    right = row.get("answer", row.get("answers"))
    try:
        nothing = max(gold.credit(kit, row, answer) for answer in gold.unread)
        if any(gold.credit(kit, row, answer) > nothing for answer in dict.fromkeys(gold.answers(row))):
            return None
    except Exception as error:  # the kit's rules raise whatever they stumble over
        return f"VLMEvalKit cannot score the right answer {right!r} ({type(error).__name__}: {error})"
    if nothing:
        return f"with the right answer {right!r}, VLMEvalKit counts answers that it cannot read as right"
    return f"VLMEvalKit counts no answer as right, not even the right answer {right!r}"


def text(row: Row) -> list[str]:
    """Return the one right answer."""
    return [row["answer"]]


def listed(row: Row) -> list[str]:
    """Return all right answers: the answer, or the elements of a list."""
    answers = literal(row["answer"])
    return [str(answer) for answer in answers] if isinstance(answers, list) else text(row)


def crowd(row: Row) -> list[str]:
    """Return what people answered, for VizWiz."""
    return [str(answer) for answer in ast.literal_eval(row["answers"])]


def letter_or_text(row: Row) -> list[str]:
    """Return the letter of MathVista's right option, or the right answer of a question without options."""
    return [row["answer_option"]] if row["question_type"] == "multi_choice" else text(row)


def choice(kit: Kit, row: Row, answer: str) -> float:
    """Multiple choice: the option that the kit reads from the answer; "Z" if it reads none."""
    return float((kit.multiple_choice.can_infer(answer, shown(row)) or "Z") == row["answer"])


def open_choice(kit: Kit, row: Row, answer: str) -> float:
    """MMMU: a question without option A has its right answer as A and all others as B."""
    options, right = shown(row), row["answer"]
    if "A" not in options:
        options |= {"A": right, "B": "Other Answers"}
        right = right if right in list(ascii_uppercase) else "A"
    return float((kit.multiple_choice.can_infer(answer, options) or "Z") == right)


def reading(kit: Kit, row: Row, answer: str) -> float:
    """OCRBench: one of the right answers occurs in the answer."""
    return float(contains(answer, row["answer"], row["category"]))


def mathvista(kit: Kit, row: Row, answer: str) -> float:
    """MathVista: the kit's check of a judge's reply."""
    return float(bool(kit.mathvista.post_check({**row, "res": answer})))


def mathvision(kit: Kit, row: Row, answer: str) -> float:
    """MathVision: the kit's check of a judge's reply."""
    return float(bool(kit.mathv.post_check({**row, "res": answer})))


def short(name: str, method: str) -> Callable[[Any, Row, str], float]:
    """Return the credit of short answers to a dataset of the kit, by one of the kit's methods of comparing them."""

    def credit(kit: Kit, row: Row, answer: str) -> float:
        line = kit.vqa_eval.process_line({"answer": row["answer"], "prediction": answer}, method=method)
        [hit] = kit.vqa_eval.hit_calculate([line], name)
        return float(hit)

    return credit
