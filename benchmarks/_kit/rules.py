"""Rules that replace a judge model where VLMEvalKit requires one; every score is then labelled "rule".

Mathematical answers: the last number or option letter. Instructions (MIA-Bench): a small vocabulary of instructions
that a program can check; an instruction outside it is refused, never guessed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

NOTHING = "?"
"""Reply if an answer holds neither a number nor an option letter."""

_LAST = re.compile(r"(?<![\w.])-?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?|\.\d+)(?!\w)|\b[A-H]\b")

Check = Callable[[re.Match[str], str], bool]


def last_value(row: Mapping[str, Any]) -> str:
    """Return the last number (thousands separators removed) or single letter A–H in a row's prediction."""
    found = _LAST.findall(str(row["prediction"]))
    return found[-1].replace(",", "") if found else NOTHING


def _twice(instruction: re.Match[str], answer: str) -> bool:
    words = re.findall(r"[^\W_]+", answer.lower())
    half = len(words) // 2
    return half > 0 and words[:half] == words[half:]


def _brackets(instruction: re.Match[str], answer: str) -> bool:
    return re.fullmatch(r"\(.+\)|\[.+\]", answer.strip(), re.S) is not None


def _sentence(instruction: re.Match[str], answer: str) -> bool:
    return len(answer.split()) >= 3 and answer.rstrip().endswith((".", "!", "?"))


def _list(instruction: re.Match[str], answer: str) -> bool:
    lines = [line for line in answer.splitlines() if line.strip()]
    return bool(lines) and all(re.match(r"\s*(?:[-*•]|\d+[.)])\s*\S", line) for line in lines)


def _mention(instruction: re.Match[str], answer: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(instruction['what'])}(?!\w)", answer, re.I) is not None


INSTRUCTIONS: tuple[tuple[re.Pattern[str], Check], ...] = tuple(
    (re.compile(pattern, re.I), check)
    for pattern, check in (
        (r"answer twice", _twice),
        (r"answer in brackets", _brackets),
        (r"answer in a sentence", _sentence),
        (r"answer as a list", _list),
        (r"mention the (?:color|shape|number|word) (?P<what>[\w-]+)", _mention),
    )
)
"""Instruction components the rule judge can check: pattern of the whole component -> predicate on the answer."""


def _rule(component: str) -> tuple[re.Match[str], Check] | None:
    text = component.strip().rstrip(".")
    return next(((m, check) for pattern, check in INSTRUCTIONS if (m := pattern.fullmatch(text))), None)


def uncovered(row: Mapping[str, Any]) -> list[str]:
    """Return the instruction components of a row that no rule covers."""
    return [component for component in ast.literal_eval(row["components"]) if _rule(component) is None]


def grade(row: Mapping[str, Any]) -> str:
    """Grade a row in the form of MIA-Bench's judge: each component followed or not, and the weighted total.

    Raises:
        ValueError: a component that no rule covers.
    """
    components = ast.literal_eval(row["components"])
    weights = [Fraction(str(weight)) for weight in ast.literal_eval(row["component_weight"])]
    followed = []
    for component in components:
        rule = _rule(component)
        if rule is None:
            raise ValueError(f"no rule covers the instruction {component!r}")
        match, check = rule
        followed.append(check(match, str(row["prediction"])))
    total = sum((w for w, ok in zip(weights, followed, strict=True) if ok), Fraction()) / sum(weights)
    scores = [f"score of component {i}: {int(ok)}/1" for i, ok in enumerate(followed, 1)]
    return ", ".join([*scores, f"total score: {total.numerator}/{total.denominator}"]) + "."
