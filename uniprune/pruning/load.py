"""Construct a method by its registered name."""

from __future__ import annotations

import dataclasses
from typing import Any

from uniprune.errors import UserError, unknown
from uniprune.pruning.base import Pruner
from uniprune.registry import METHODS


def load_method(name: str, **fields: Any) -> Pruner:
    """Construct a registered method, e.g. `load_method("fastv", ratio=0.111, layer=3)`.

    Args:
        name: a name of `uniprune list methods`, or one that a plugin registered.
        fields: `ratio` and the method's hyper-parameters.

    Raises:
        UserError: the name, a field or a value is invalid, or a required field is missing.
    """
    method = METHODS.get(name)
    known = {field.name: field for field in dataclasses.fields(method) if field.init}
    for field_name in fields:
        if field_name not in known:
            raise unknown(f"field of method {name!r}:", field_name, known)
    missing = dataclasses.MISSING
    for field_name, field in known.items():
        if field_name not in fields and field.default is missing and field.default_factory is missing:
            raise UserError(f"method {name!r} requires a value of {field_name!r}; pass {field_name}=...")
    pruner: Pruner = method(**fields)
    return pruner
