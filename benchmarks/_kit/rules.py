"""Rules that replace a judge model where VLMEvalKit requires one; every score is then labelled "rule".

Mathematical answers: the last number, or the option that is named last.

Instructions (MIA-Bench): a small vocabulary of instructions that a program can check; an instruction outside it is
refused, never guessed.
"""

from __future__ import annotations

import ast
import math
import re
import string
from collections.abc import Callable, Container, Mapping
from fractions import Fraction
from typing import Any

from .plain_text import boxed, numbers, plain, value

NOTHING = "?"
"""Reply if an answer holds neither a number nor an option letter."""

_LETTER = r"(?<![A-Za-z0-9_'])(?P<letter>[A-H])(?![A-Za-z0-9_'])"
_NAMED_LETTER = re.compile(
    rf"""(?: [(\[{{*"] | \b(?i:options?|choices?|answers?|is|are|be|choose|select|pick)\b | [选項项案为是選為:=] )
    [\s:=*("]{0, 8} {_LETTER} (?!\s+[a-z]) | ^\s*{_LETTER.replace("letter", "first")} \s* (?: [.):,*] | $ )""",
    re.X | re.M,
)
"""A letter that is named as an option: "(B)", "option B", "选B", "B. 12 cm"; not the article of "is A circle"."""
_ANY_LETTER = re.compile(rf"{_LETTER}(?!\s+[a-z])|\A\W*(?P<small>[a-h])\W*\Z")
_OPENING = re.compile(r"\W*(yes|no)(?![A-Za-z])", re.I)
"""The word that begins "Yes, there is no gap."."""

Check = Callable[[re.Match[str], str], bool]


def last_value(row: Mapping[str, Any]) -> str:
    r"""Return the answer that a row's prediction ends with, as VLMEvalKit's check reads it; `NOTHING` without one.

    For a row with options, the letter of one: the last letter named as an option ("(B)", "option B", "选B"), else that
    of the option "Yes" or "No" with which it begins, else of the option mentioned last by its text or number, else the
    last single letter. For others, the last number, in the form of the row's `answer_type`, else the last letter A-H.
    If there is a `\boxed{…}`, only the last one is read.
    """
    text = plain(boxed(str(row["prediction"])))
    options = _options(row)
    if options:
        return _named_option(text, options) or _mentioned_option(text, options) or _letter(text, options) or NOTHING
    found = numbers(text)
    return _typed(found[-1], str(row.get("answer_type"))) if found else _letter(text, string.ascii_uppercase) or NOTHING


def _options(row: Mapping[str, Any]) -> dict[str, str]:
    """Return letter -> plain text of a row's options."""
    if row.get("question_type", "multi_choice") != "multi_choice":  # MathVista's other rows have any text as choices
        return {}
    texts = ast.literal_eval(str(row.get("choices") or "[]"))
    return dict(zip(string.ascii_uppercase, (plain(str(text)).strip() for text in texts), strict=False))


def _named_option(text: str, options: Container[str]) -> str:
    """Return the last letter that is named as one of the options."""
    found = [match["letter"] or match["first"] for match in _NAMED_LETTER.finditer(text)]
    return next((letter for letter in reversed(found) if letter in options), "")


def _letter(text: str, options: Container[str]) -> str:
    """Return the last letter of an option that stands alone."""
    found = [(match["letter"] or match["small"]).upper() for match in _ANY_LETTER.finditer(text)]
    return next((letter for letter in reversed(found) if letter in options), "")


def _mentioned_option(text: str, options: Mapping[str, str]) -> str:
    """Return the letter of the option with which a text begins ("Yes, …"), else of the last one, by text or number.

    Of several texts that end there, the longest is meant. A number stands for the only option with its value.
    """
    if opening := _OPENING.match(text):
        said = [letter for letter, option in options.items() if option.lower() == opening[1].lower()]
        if said:
            return said[0]
    ends = {letter: (_last_end(text, option), len(option)) for letter, option in options.items()}
    last = max(ends.values())
    if last[0] >= 0:
        return next(letter for letter, end in ends.items() if end == last)
    found = [value(number) for number in numbers(text)[-1:]]
    same = [
        letter for letter, option in options.items() if found and [value(number) for number in numbers(option)] == found
    ]
    return same[0] if len(same) == 1 else ""


def _last_end(text: str, option: str) -> int:
    """Return where the last mention of an option's text ends, whatever its case, blanks and $; -1 without one."""
    pattern = r"[\s$]*".join(map(re.escape, re.findall(r"[A-Za-z0-9.]+|[^\s$]", option)))
    mention = rf"(?<![A-Za-z0-9_.]){pattern}(?![A-Za-z0-9_]|[./,]\d)"
    return max((found.end() for found in re.finditer(mention, text, re.I)), default=-1) if pattern else -1


def _typed(number: str, answer_type: str) -> str:
    """Write a number in the form that VLMEvalKit's check of an `answer_type` reads: 72.0 and 7.2e1 as 72."""
    found = value(number)
    if found is None or not math.isfinite(found):
        return number
    if answer_type == "integer" and found.is_integer():
        return str(int(found))
    return repr(found) if answer_type == "float" else number


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
    return re.search(rf"(?<![A-Za-z0-9_]){re.escape(instruction['what'])}(?![A-Za-z0-9_])", answer, re.I) is not None


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
