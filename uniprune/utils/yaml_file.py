"""YAML that means what it says: the JSON-like core of YAML 1.2, without guesses.

    null    empty, ~, null
    bool    true, false                 (yes, no, on and off are texts)
    int     decimal digits              (010, 0x1f, 1_000 and 1:30 are texts)
    float   0.5, 1e-4, 5.               (.nan, .inf and 1e400 are refused)

Everything else is a text, dates included. Refused, with file and line: a key given twice, a key that is no text, tags,
values that contain themselves, and control characters. Texts are never converted to numbers: the models that check a
file are strict.
"""

from __future__ import annotations

import copy
import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.constructor import ConstructorError

from uniprune.errors import UserError

M = TypeVar("M", bound=BaseModel)

VALUES = 50_000
"""Most values of a file, with repeated (`*name`) ones counted as often as they occur."""
PREFIX = "tag:yaml.org,2002:"
_UNREADABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """Reader of plain values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse tags, which would override the type of a value by its look."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's parser has no annotations
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise ConstructorError(None, None, f"tag {tag!r}; write the plain value", event.start_mark)
        return super().compose_node(parent, index)

    def get_single_node(self) -> Any:
        """Refuse values that contain themselves, or grow beyond measure by repetition."""
        node = super().get_single_node()
        if node is not None and _size(node, {}) > VALUES:
            raise ConstructorError(None, None, f"more than {VALUES} values; write fewer repetitions", node.start_mark)
        return node


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", [*"-+0123456789"]),
    (
        "float",
        r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        [*"-+0123456789."],
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(PREFIX + _tag, re.compile(f"^(?:{_pattern})$"), _first)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    """Return the fields of a mapping; fields merged from elsewhere (`<<`) give way to its own."""
    seen: dict[str, Any] = {}
    for key, _ in node.value:
        if key.tag not in (PREFIX + "str", PREFIX + "merge"):
            shown = repr(key.value) if isinstance(key.value, str) else "of several values"
            raise ConstructorError(None, None, f"key {shown} is no text; write it in quotes", key.start_mark)
        if key.value in seen:
            first = seen[key.value].line + 1
            problem = f"key {key.value!r} is given twice, first in line {first}; leave one of them"
            raise ConstructorError(None, None, problem, key.start_mark)
        seen[key.value] = key.start_mark
    loader.flatten_mapping(node)
    return {_text(loader, key): loader.construct_object(value, deep=True) for key, value in node.value}


def _list(loader: _Loader, node: yaml.SequenceNode) -> list[Any]:
    return [loader.construct_object(value, deep=True) for value in node.value]


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    text: str = node.value
    if bad := _UNREADABLE.search(text):
        raise ConstructorError(None, None, f"a text with the character {bad[0]!r}; leave it out", node.start_mark)
    return text


def _number(loader: _Loader, node: yaml.ScalarNode) -> float:
    try:
        value = float(node.value)
    except ValueError:  # .nan, .inf
        value = math.nan
    if not math.isfinite(value):
        raise ConstructorError(None, None, f"{node.value} is no finite number; write one", node.start_mark)
    return value


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    if len(node.value) > 30:
        raise ConstructorError(None, None, f"a whole number of {len(node.value)} digits; write less", node.start_mark)
    return int(node.value)


_Loader.add_constructor(PREFIX + "map", _mapping)
_Loader.add_constructor(PREFIX + "seq", _list)
_Loader.add_constructor(PREFIX + "str", _text)
_Loader.add_constructor(PREFIX + "float", _number)
_Loader.add_constructor(PREFIX + "int", _whole)
_Loader.add_constructor(PREFIX + "bool", lambda loader, node: node.value == "true")
_Loader.add_constructor(PREFIX + "null", lambda loader, node: None)


@lru_cache(maxsize=8)
def _value(text: str) -> Any:
    """Parse a text; every run reads the file of models several times, which takes 25 ms."""
    return yaml.load(text, _Loader)  # _Loader is a SafeLoader


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        ValueError: it is no YAML, or a part of it is not allowed; the message gives the line.
    """
    try:
        return copy.deepcopy(_value(text))
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise ValueError(f"{line}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        UserError: it cannot be read, or is no YAML of the allowed kind; the message names file and line.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # also text that is not UTF-8
        raise UserError(f"{path} cannot be read as YAML: {error}") from error


def read_model(path: Path, model: type[M], form: str = "") -> M:
    """Read a YAML file of a known form.

    Args:
        path: the file.
        model: the form. Types are strict: no text or true is a number, and 1.5 is no whole number.
        form: end of the message about another form: where the form is described.

    Raises:
        UserError: as `read_yaml`; or a field is unknown, missing or of another type. The message names file and field.
    """
    content = read_yaml(path)
    try:
        return model.model_validate(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        given = "" if first["type"] == "missing" else f" (got {_short(first['input'])})"
        raise UserError(f"{path}: {place}: {first['msg']}{given}" + f"; {form}" * bool(form)) from error


def _short(value: Any) -> str:
    """Show a value in at most 80 characters."""
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values of a node, repeated ones as often as they occur.

    Raises:
        ConstructorError: it contains itself.
    """
    if id(node) not in known:
        known[id(node)] = -1
        pairs = node.value if isinstance(node, yaml.CollectionNode) else []
        inner = [part for pair in pairs for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in inner)
    if known[id(node)] < 0:
        raise ConstructorError(None, None, "a value that contains itself; write it out", node.start_mark)
    return known[id(node)]
