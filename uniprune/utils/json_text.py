"""JSON as its standard has it: finite numbers and no key twice, both when it is written and when it is read."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

CONSTANTS = ("NaN", "Infinity")
LARGE = re.compile(r"[eE]\+?[0-9]{3,}(?=[\s,\]}]|\Z)"), re.compile("[0-9]{200}")
"""Signs of a number too large for floating point: an exponent of three digits, or as many digits before it."""


def to_json(value: Any, **layout: Any) -> str:
    """Write a plain value as JSON text.

    Args:
        value: the value.
        layout: `indent`, `sort_keys`, … of `json.dumps`.

    Raises:
        ValueError: a number in it is NaN or infinite; the message names its field.
    """
    try:
        return json.dumps(value, allow_nan=False, **layout)
    except ValueError as error:
        name, number = next(not_finite(value), ("", None))
        if number is None:
            raise
        raise ValueError(f"{name or 'the value'} is {number}; only finite numbers can be stored") from error


def from_json(text: str | bytes) -> Any:
    """Read JSON text.

    Raises:
        ValueError: it is not JSON, has one key twice, or a number that is NaN, infinite or too large; the message names
            the field.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")  # as json.loads does
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    # Looking through all values takes longer than reading them, and hardly any text needs it.
    for name, number in not_finite(value) if _suspect(text) else ():
        raise ValueError(f"{name or 'the value'} is {number}; only finite numbers are allowed")
    return value


def _suspect(text: str) -> bool:
    """Return whether a text may hold a number that is not finite; False only if it holds none."""
    return any(name in text for name in CONSTANTS) or any(large.search(text) for large in LARGE)


def not_finite(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Yield name and value of every number in a plain value that is NaN or infinite."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield place, value
        return
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, part in inner:
        yield from not_finite(part, f"{place}.{name}" if place else str(name))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's fields; raise ValueError if one is given twice."""
    fields = {sys.intern(name): value for name, value in pairs}  # records of one benchmark have the same keys
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return fields
