"""Checks of method hyper-parameters: what is wrong, what was expected, as a UserError."""

from __future__ import annotations

from typing import Any, get_args

from uniprune.errors import UserError


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise UserError unless `value` is one of the values of the Literal type `choices`."""
    if value not in get_args(choices):
        raise UserError(f"{name} {value!r} is unknown; expected one of {', '.join(map(str, get_args(choices)))}")


def check_within(name: str, value: float, low: float, high: float) -> None:
    """Raise UserError unless `value` lies in [low, high] (NaN does not)."""
    if not low <= value <= high:
        raise UserError(f"{name} {value!r} is outside [{low:g}, {high:g}]")


def check_count(name: str, value: int, low: int = 1) -> None:
    """Raise UserError unless `value` is a whole number of at least `low`."""
    if not isinstance(value, int) or value < low:
        raise UserError(f"{name} {value!r} must be a whole number of at least {low}")


def check_positive(name: str, value: float) -> None:
    """Raise UserError unless `value` is a finite number above 0."""
    if not 0 < value < float("inf"):
        raise UserError(f"{name} {value!r} must be a finite number above 0")
