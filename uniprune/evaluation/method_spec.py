"""From the words of the command line to a method object: names, compositions and `--set field=value`."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from uniprune.errors import UserError, unknown
from uniprune.evaluation.code_hash import code_hash
from uniprune.pruning.base import Compose, Pruner
from uniprune.pruning.budget import check_ratio
from uniprune.pruning.fields import field_types
from uniprune.registry import METHODS
from uniprune.results.records import MethodRecord


@dataclass(frozen=True)
class MethodSpec:
    """A method as its user asked for it.

    Attributes:
        name: a registered name, or several joined by "+" to act one after the other.
        ratio: total keep ratio; a composition spreads it evenly over its parts.
        layer: pruning layer of the parts that act inside the language model; None for their defaults.
        seed: seed of every part.
        settings: "field" or "part.field" -> text, from `--set`.
    """

    name: str
    ratio: float = 1.0
    layer: int | None = None
    seed: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)

    def pruner(self) -> Pruner:
        """The method object.

        Raises:
            UserError: an unknown method or field, or a value the method refuses.
        """
        check_ratio(self.ratio)
        parts: list[Pruner] = [
            method(seed=self.seed, **fields)
            for method, fields in zip(self.classes().values(), self.fields().values(), strict=True)
        ]
        return (parts[0] if len(parts) == 1 else Compose(*parts)).with_ratio(self.ratio)

    def classes(self) -> dict[str, type[Pruner]]:
        """Part -> its class. Raises UserError for an unknown or repeated part."""
        names = re.split(r"\+(?=[^+])", self.name)  # a "+" that ends a name belongs to it
        if len(set(names)) < len(names):
            raise UserError(f"method {self.name!r} names a part twice; a composition needs different methods")
        return {name: METHODS.get(name) for name in names}

    def has(self, key: str) -> bool:
        """Whether some part has the field called "field" or "part.field"."""
        part, _, name = key.rpartition(".")
        return any(part in ("", owner) and name in settable(method) for owner, method in self.classes().items())

    def random(self) -> bool:
        """Whether some part chooses by chance, so that a seed means something to it."""
        return any(method.random for method in self.classes().values())

    def prunes_inside(self) -> bool:
        """Whether some part acts inside the language model, so that a layer means something to it."""
        return any(method.layer > 0 for method in self.classes().values())

    def fields(self) -> dict[str, dict[str, Any]]:
        """Part -> the fields the user set, as validated values. Raises UserError for a field that no part has."""
        classes = self.classes()
        chosen: dict[str, dict[str, Any]] = {name: {} for name in classes}
        for key, text in self.settings.items():
            part, _, name = key.rpartition(".")
            if part and part not in classes:
                raise unknown(f"part of method {self.name!r}:", part, classes)
            asked = {part: classes[part]} if part else classes
            owners = [owner for owner, method in asked.items() if name in settable(method)]
            if not owners:
                known = {field for method in asked.values() for field in settable(method)}
                raise unknown(f"field of method {self.name!r}:", name, known)
            for owner in owners:
                chosen[owner][name] = parse_field(classes[owner], name, text)
        if self.layer is not None:
            for name in [n for n, method in classes.items() if method.layer > 0] or classes:
                chosen[name].setdefault("layer", self.layer)
        return chosen

    def record(self, resolved: Pruner, num_layers: int) -> MethodRecord:
        """What the run record says of the method; `resolved` is the object that runs, in a decoder of `num_layers`."""
        parts = resolved.parts if isinstance(resolved, Compose) else (resolved,)
        passed = {f"{part}.{name}": value for part, fields in self.fields().items() for name, value in fields.items()}
        return MethodRecord(
            name=self.name,
            kind=resolved.kind,
            passed=plain(passed),
            resolved=[plain({f.name: getattr(part, f.name) for f in dataclasses.fields(part)}) for part in parts],
            stages=[(stage.layer, stage.ratio) for stage in resolved.schedule(num_layers)],
            code=code_hash(type(part) for part in parts),
        )


def settable(method: type[Pruner]) -> list[str]:
    """Fields `--set` may name; the budget and the seed have options of their own."""
    return [f.name for f in dataclasses.fields(method) if f.init and f.name not in ("ratio", "seed")]


def parse_field(method: type, name: str, text: str, option: str = "--set") -> Any:
    """The text after `name=` as a value of the field's annotated type.

    Raises:
        UserError: it is not one.
    """
    kind = field_types(method).get(name, Any)
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    for value in (_yaml(text), text):
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
    expected = kind.__name__ if isinstance(kind, type) else kind
    raise UserError(f"{option} {name}={text}: {reason[0].lower()}{reason[1:]}; expected {expected}")


def parse_settings(items: Iterable[str]) -> dict[str, str]:
    """`["a=1", "b.c=x", "@found.json"]` as a table; a file is what `calibrate` wrote.

    Raises:
        UserError: an item without "=", or a file that cannot be read as such.
    """
    table: dict[str, str] = {}
    for item in items:
        if item.startswith("@"):
            table |= read_settings(Path(item[1:]))
            continue
        name, sign, text = item.partition("=")
        if not (name and sign):
            raise UserError(f"--set {item!r} must have the form field=value, for example --set positions=compact")
        table[name] = text
    return table


def read_settings(path: Path) -> dict[str, str]:
    """The settings in a file that `calibrate` wrote. Raises UserError when it is not one."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
        return {name: json.dumps(value) for name, value in settings.items()}
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise UserError(
            f"--set @{path}: no settings can be read from it ({type(error).__name__}: {error}); expected a file that "
            "`python run.py calibrate METHOD --output FILE` wrote"
        ) from error


def search_of(name: str, settings: Mapping[str, str]) -> Any:
    """The search of a method, see `uniprune.pruning.calibration`. `settings` are its fields, from `--search`.

    Raises:
        UserError: the method has nothing to search for, or the search has no such field.
    """
    search = METHODS.get(name).calibration
    if search is None:
        able = [other for other in METHODS.names() if METHODS.get(other).calibration is not None]
        raise UserError(f"method {name!r} has no settings to find; those that do: {', '.join(able)}")
    known = [one.name for one in dataclasses.fields(search) if one.init]
    for field_name in settings:
        if field_name not in known:
            raise unknown(f"field of the search of {name!r}:", field_name, known)
    return search(**{key: parse_field(search, key, text, "--search") for key, text in settings.items()})


def plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Field values as plain JSON values."""
    result: dict[str, Any] = TypeAdapter(dict[str, Any]).dump_python(dict(fields), mode="json", fallback=str)
    return result


def _yaml(text: str) -> Any:
    """YAML reading of a value ("0.5", "[1, 2]", "true", "null"), or the text itself."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
