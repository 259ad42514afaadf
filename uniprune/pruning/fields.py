"""Types of the fields of methods and searches, and the check of values against them."""

from __future__ import annotations

import dataclasses
import inspect
import math
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from uniprune.errors import UserError


@dataclass(frozen=True)
class Bound:
    """Limits of a number, as metadata of an annotation; NaN and infinities are always outside.

    Attributes:
        low: smallest number allowed.
        high: largest number allowed.
        above: whether `low` itself is outside.
    """

    low: float
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.above else value >= self.low) and value <= self.high and value < math.inf

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"in {'(' if self.above else '['}{self.low:g}, {self.high:g}]"
        return f"above {self.low:g}" if self.above else f"of at least {self.low:g}"


Share = Annotated[float, Bound(0, 1)]
Cosine = Annotated[float, Bound(-1, 1)]
Positive = Annotated[float, Bound(0, above=True)]
Weight = Annotated[float, Bound(0)]
Count = Annotated[int, Bound(1)]
NonNegative = Annotated[int, Bound(0)]
_NOUNS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text", NoneType: "None"}


def validate(owner: Any) -> None:
    """Check every field of a method or a search.

    Raises:
        UserError: a value is not one that the field's annotation allows.
    """
    owning: type = type(owner)
    kinds = field_types(owning)
    for field in dataclasses.fields(owner):
        kind, value = kinds.get(field.name, Any), getattr(owner, field.name)
        if not allows(kind, value):
            raise UserError(f"{field.name} {value!r} {_problem(kind, value)}")


@cache
def field_types(owner: type) -> dict[str, Any]:
    """Return field -> annotation, metadata included, without annotations that only a type checker can resolve."""
    found: dict[str, Any] = {}
    for base in reversed(owner.__mro__):
        for name, kind in inspect.get_annotations(base).items():
            found.pop(name, None)
            alone = type(name, (), {"__annotations__": {name: kind}, "__module__": base.__module__})
            with suppress(NameError):
                found |= get_type_hints(alone, include_extras=True)
    return found


def allows(kind: Any, value: Any) -> bool:
    """Check whether a value is of an annotated type, numbers finite; annotations that are no types allow everything."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return allows(parts[0], value) and all(value in bound for bound in parts[1:] if isinstance(bound, Bound))
    if origin is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if origin in (Union, UnionType):
        return any(allows(part, value) for part in parts)
    if origin is tuple and isinstance(value, tuple):
        inner = parts[:1] * len(value) if parts[-1:] == (...,) else parts
        return len(inner) == len(value) and all(map(allows, inner, value))
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool) and abs(value) < math.inf
    try:
        return isinstance(value, origin or kind)
    except TypeError:
        return True


def _problem(kind: Any, value: Any) -> str:
    """Describe why a type does not allow a value."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"is unknown; expected {_expected(kind)}"
    if origin is Annotated and allows(parts[0], 0.0 if isinstance(value, float) else value):
        for bound in parts[1:]:
            if isinstance(bound, Bound) and bound.high < math.inf:
                return f"is outside {str(bound).removeprefix('in ')}"
    return f"must be {_expected(kind)}"


def _expected(kind: Any) -> str:
    """Describe the values that a type allows."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return " ".join([_expected(parts[0]), *(str(bound) for bound in parts[1:] if isinstance(bound, Bound))])
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin in (Union, UnionType):
        return " or ".join(map(_expected, parts))
    return _NOUNS.get(kind, f"of type {getattr(kind, '__name__', kind) if origin is None else kind}")
