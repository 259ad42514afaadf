"""Credit per item of VLMEvalKit's video datasets, from its own result files; and faults of their rows."""

from __future__ import annotations

import ast
from collections.abc import Callable
from string import ascii_uppercase
from typing import Any

from .faults import Row
from .items import Credits, Evaluation


def lettered(module: str) -> Callable[[Evaluation], Credits]:
    """Return the credits of Video-MME and LongVideoBench: unread where the kit finds no option's letter."""

    def credits(evaluation: Evaluation) -> Credits:
        kit: Any = evaluation.kit  # a VideoKit
        letter = kit.letters[module]
        return Credits(_hits(evaluation), sum(letter(str(text)) == "" for text in evaluation.table["prediction"]))

    return credits


def matched(evaluation: Evaluation) -> Credits:
    """MVBench: the kit's match of an answer's first word with the right option.

    An answer without a word, or of one bracket, matches every option, so that the kit counts it as right; here it is
    unread and earns nothing.
    """
    kit: Any = evaluation.kit  # a VideoKit
    credits, unread = _hits(evaluation), 0
    for index, row in zip(evaluation.indices, evaluation.table.to_dict("records"), strict=True):
        text, options = str(row["prediction"]), _options(row)
        found = [letter for letter, option in options.items() if kit.matches(text, f"({letter}) {option}")]
        if len(found) == len(options):
            credits[index] = 0.0
        unread += len(found) == len(options) or not (found or kit.multiple_choice.can_infer(text, options))
    return Credits(credits, unread)


def bracketed(evaluation: Evaluation) -> Credits:
    """MLVU: unread where neither the letter before a bracket nor the kit's rules for options name one."""
    kit, unread = evaluation.kit, 0
    for row in evaluation.table.to_dict("records"):
        text, options = str(row["prediction"]), _options(row)
        letter = text[: text.index(")")][-1:] if ")" in text else text
        unread += letter not in options and not kit.multiple_choice.can_infer(text, options)
    return Credits(_hits(evaluation), unread)


def candidates_fault(row: Row) -> str | None:
    """The right answer is, word for word, one of at least two options."""
    options = ast.literal_eval(row["candidates"])
    if not isinstance(options, list) or not 2 <= len(options) <= len(ascii_uppercase):
        return f"candidates are {row['candidates']!r}; expected a list of two options or more"
    if row["answer"] not in options:
        return f"the answer {row['answer']!r} is none of its candidates"
    return None


def letter_fault(row: Row) -> str | None:
    """Video-MME: four options, as its prompt says."""
    options = ast.literal_eval(row["candidates"])
    if not isinstance(options, list) or len(options) != 4 or not all(isinstance(option, str) for option in options):
        return f"candidates are {row['candidates']!r}; expected a list of four options"
    return None


def number_fault(row: Row) -> str | None:
    """LongVideoBench: the right answer is the number of one of two to five options."""
    options = ast.literal_eval(row["candidates"])
    if not isinstance(options, list) or not 2 <= len(options) <= 5:
        return f"candidates are {row['candidates']!r}; expected a list of two to five options"
    if row["correct_choice"] not in map(str, range(len(options))):
        return f"correct_choice {row['correct_choice']!r} is the number of no candidate, of which the first is 0"
    return None


def _hits(evaluation: Evaluation) -> dict[str, float]:
    """Read the kit's score of every row: 1 is right, 0 wrong, -1 an answer that it takes for a failed request."""
    scores = evaluation.file("_score")["score"]
    return {index: float(score == 1) for index, score in zip(evaluation.indices, scores, strict=True)}


def _options(row: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(ascii_uppercase, ast.literal_eval(row["candidates"]), strict=False))
