"""Cards of the methods on the page, as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from uniprune.errors import UserError
from uniprune.registry import METHODS
from uniprune.reports.method_cards import describe_count, describe_place, description, needs, parameters


def cards(names: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Return method -> the cards of its parts; a part that is not registered here has a card that says so."""
    return {name: [card(part) for part in name.split("+")] for name in names}


def card(name: str) -> dict[str, Any]:
    """Return the card of a registered method."""
    try:
        entry = METHODS.entry(name)
    except UserError:
        missing = "This method is not registered here; --plugin FILE adds the card of a method from a file."
        return {"name": name, "text": missing}
    method, metadata = entry.target, entry.metadata
    return {
        "name": name,
        "text": description(method),
        "paper": metadata.get("paper", ""),
        "code": metadata.get("code", ""),
        "acts": describe_place(method),
        "tokens": describe_count(method),
        "needs": needs(method),
        "deviations": list(metadata.get("deviations", ())),
        "parameters": [dataclasses.asdict(one) for one in parameters(method)],
    }
