"""Rules that replace a judge model for MM-Vet and LLaVA-Bench where the right answer is a few words.

A row whose right answer is a text needs a judge model; it is refused, never guessed. The official files have such rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

WORDS = 3
"""Most words of an answer that a rule looks for in a reply."""


def share(row: Mapping[str, Any]) -> str:
    """Grade a row of MM-Vet: the share of the elements joined by <AND> that occur, of the best <OR> alternative."""
    text = str(row["prediction"])
    found = [[_occurs(element, text) for element in elements] for elements in _alternatives(row)]
    return f"{max(sum(hits) / len(hits) for hits in found):.1f}"


def long(row: Mapping[str, Any]) -> list[str]:
    """Return the elements of MM-Vet's right answer that no rule covers."""
    return [element for elements in _alternatives(row) for element in elements if len(element.split()) > WORDS]


def compared(row: Mapping[str, Any]) -> str:
    """Grade a row of LLaVA-Bench: 10 for GPT-4's answer, and for the model's if it contains that, else 1."""
    return f"10 {10 if _occurs(str(row['gpt4_ans']), str(row['prediction'])) else 1}\nBy rule."


def long_reference(row: Mapping[str, Any]) -> list[str]:
    """Return GPT-4's answer if no rule covers it."""
    return [str(row["gpt4_ans"])] if len(str(row["gpt4_ans"]).split()) > WORDS else []


def _alternatives(row: Mapping[str, Any]) -> list[list[str]]:
    return [
        [element.strip() for element in alternative.split("<AND>")] for alternative in str(row["answer"]).split("<OR>")
    ]


def _occurs(words: str, text: str) -> bool:
    """Check whether words stand in a text, whatever their case, not as parts of longer ones."""
    pattern = r"\s+".join(map(re.escape, words.strip().rstrip(".").split()))
    return re.search(rf"(?<![A-Za-z0-9_]){pattern}(?![A-Za-z0-9_]|[.,]\d)", text, re.I) is not None
