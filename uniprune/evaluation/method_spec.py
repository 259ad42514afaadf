"""Method specifications: names, compositions and `--set field=value`, resolved to pruner objects."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from uniprune.errors import UserError, unknown
from uniprune.evaluation.code_hash import code_hash, identity_fields
from uniprune.pruning.base import Compose, Pruner
from uniprune.pruning.budget import check_ratio
from uniprune.pruning.fields import field_types
from uniprune.pruning.placement import moves, placed
from uniprune.registry import METHODS
from uniprune.results.records import MethodRecord
from uniprune.utils.json_text import from_json, to_json
from uniprune.utils.paths import PROGRAM
from uniprune.utils.yaml_file import parse_yaml


@dataclass(frozen=True)
class MethodSpec:
    """A method with its budget, seed and fields, as given by a user.

    Attributes:
        name: a registered or published name, or several joined by "+" to act one after the other.
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

    def __getstate__(self) -> dict[str, Any]:
        """Leave out cached classes: another process loads plugins only after it has received the specification."""
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}

    @cached_property
    def classes(self) -> dict[str, type[Pruner]]:
        """Part -> its class.

        Raises:
            UserError: an unknown or repeated part.
        """
        names = _parts(self._spelled_out[0])
        if len(set(names)) < len(names):
            raise UserError(f"method {self.name!r} names a part twice; a composition needs different methods")
        return {name: METHODS.get(name) for name in names}

    @cached_property
    def _spelled_out(self) -> tuple[str, dict[str, str]]:
        """Name and settings, with the meaning of each published name in its place.

        Raises:
            UserError: a setting differs from the one that is part of a published name.
        """
        published, names, own = METHODS.published(), [], dict[str, str]()
        settings = dict(self.settings)
        for part in _parts(self.name):
            found = published.get(part)
            names.append(part if found is None else found.means)
            if found is None:
                continue
            several = len(_parts(found.means)) > 1
            for key, value in found.settings.items():
                own[key if several else f"{found.means}.{key}"] = setting_text(value)
            if not several:
                settings = {re.sub(rf"^{re.escape(part)}\.", f"{found.means}.", key): settings[key] for key in settings}
        for key in settings:
            if fixed := [one for one in own if one == key or ("." not in key and one.endswith(f".{key}"))]:
                raise UserError(
                    f"--set {key}: {fixed[0]}={own[fixed[0]]} is what the name {self.name!r} means; use --method "
                    f"{'+'.join(names)} to set it otherwise"
                )
        return "+".join(names), {**settings, **own}

    def normalised(self) -> MethodSpec:
        """Return the specification that equal runs share.

        Ratio 1 without pruning, seed 0 without random choices, and the meaning of a published name in its place.

        Raises:
            UserError: an unknown method, or a ratio outside (0, 1].
        """
        check_ratio(self.ratio)
        ratio, seed = 1.0 if self.unpruned else self.ratio, self.seed if self.random else 0
        name, settings = self._spelled_out
        same = (ratio, seed, name, settings) == (self.ratio, self.seed, self.name, self.settings)
        return self if same else MethodSpec(name, ratio, self.layer, seed, settings)

    @property
    def known_as(self) -> tuple[str, ...]:
        """The published names of exactly this method with these fields, other than its own."""
        meanings = {name: dataclasses.replace(self, name=name, settings={}) for name in METHODS.published()}
        own = self._spelled_out[0]
        return tuple(name for name, spec in meanings.items() if name != own and self._equals(spec))

    def _equals(self, published: MethodSpec) -> bool:
        """Check whether a published name, at this ratio, layer and seed, is this method."""
        return [*self.classes] == [*published.classes] and self.pruner() == published.pruner()

    def pruner(self) -> Pruner:
        """Return the method object; it is constructed once.

        Raises:
            UserError: an unknown method or field, or a value that the method refuses.
        """
        return self._pruner

    @cached_property
    def _pruner(self) -> Pruner:
        check_ratio(self.ratio)
        parts: list[Pruner] = [
            method(seed=self.seed, **fields)
            for method, fields in zip(self.classes.values(), self.fields().values(), strict=True)
        ]
        return (parts[0] if len(parts) == 1 else Compose(*parts)).with_ratio(self.ratio)

    @property
    def label(self) -> str:
        """Name and ratio for progress and plans, and the seed of a method that makes random choices."""
        return self.name if self.unpruned else f"{self.name} {self.ratio:g}" + f" seed {self.seed}" * self.random

    @property
    def unpruned(self) -> bool:
        """Return whether this is the un-pruned model."""
        return all(method.kind == "none" for method in self.classes.values())

    @property
    def random(self) -> bool:
        """Return whether some part makes random choices, which depend on the seed."""
        return any(method.random for method in self.classes.values())

    @property
    def prunes_inside(self) -> bool:
        """Return whether some part acts inside the language model, where it has a layer."""
        return any(method.layer > 0 for method in self.classes.values())

    def has(self, key: str) -> bool:
        """Check whether some part has the field "field" or "part.field"."""
        part, _, name = key.rpartition(".")
        found = METHODS.published().get(part)
        part = found.means if found is not None else part
        return any(part in ("", owner) and name in settable(method) for owner, method in self.classes.items())

    def fields(self) -> dict[str, dict[str, Any]]:
        """Return the fields the user set, part -> field -> validated value.

        Raises:
            UserError: no part has a field of that name, or its value is of another type.
        """
        chosen: dict[str, dict[str, Any]] = {name: {} for name in self.classes}
        for key, text in self._spelled_out[1].items():
            part, _, name = key.rpartition(".")
            if part and part not in self.classes:
                raise unknown(f"part of method {self.name!r}:", part, self.classes)
            candidates = {part: self.classes[part]} if part else self.classes
            owners = [owner for owner, method in candidates.items() if name in settable(method)]
            if not owners:
                known = {field for method in candidates.values() for field in settable(method)}
                raise unknown(f"field of method {self.name!r}:", name, known)
            for owner in owners:
                chosen[owner][name] = parse_field(self.classes[owner], name, text)
        if self.layer is not None:
            for name in [n for n, method in self.classes.items() if method.layer > 0] or self.classes:
                chosen[name].setdefault("layer", self.layer)
        return chosen

    def record(self, resolved: Pruner, attends: Sequence[bool]) -> MethodRecord:
        """Return the method's part of a run record.

        Args:
            resolved: the pruner used.
            attends: for every layer of the decoder, whether it has attention.
        """
        scheduled = resolved.schedule(len(attends))
        parts = resolved.parts if isinstance(resolved, Compose) else (resolved,)
        passed = {f"{part}.{name}": value for part, fields in self.fields().items() for name, value in fields.items()}
        return MethodRecord(
            name=self._spelled_out[0],
            kind=resolved.kind,
            passed=plain(passed),
            resolved=[plain(identity_fields(part)) for part in parts],
            stages=[(stage.layer, stage.ratio) for stage in placed(scheduled, attends)],
            moved=moves(scheduled, attends),
            code=code_hash(type(part) for part in parts),
        )


def _parts(name: str) -> list[str]:
    """Return the names of a composition; a "+" that ends a name belongs to it."""
    return re.split(r"\+(?=[^+])", name)


def settable(method: type[Pruner]) -> list[str]:
    """Return the fields that `--set` accepts; the budget and the seed have options of their own."""
    return [f.name for f in dataclasses.fields(method) if f.init and f.name not in ("ratio", "seed")]


def parse_field(method: type, name: str, text: str, option: str = "--set") -> Any:
    """Convert the text after `name=` to the field's annotated type.

    Raises:
        UserError: the text is no such value.
    """
    kind = field_types(method).get(name, Any)
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    for value in (_yaml(text), text):
        try:
            return adapter.validate_json(to_json(value), strict=True)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
    expected = kind.__name__ if isinstance(kind, type) else kind
    raise UserError(f"{option} {name}={text}: {reason[0].lower()}{reason[1:]}; expected {expected}")


def parse_settings(items: Iterable[str]) -> dict[str, str]:
    """Parse `["a=1", "b.c=x", "@found.json"]` to field -> text; a file is one written by `calibrate`.

    Raises:
        UserError: an item without "=", or a file of another form.
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
    """Read the settings from a file written by `calibrate`.

    Raises:
        UserError: the file cannot be read or has another form.
    """
    try:
        settings = from_json(path.read_text(encoding="utf-8"))["settings"]
        return {name: setting_text(value) for name, value in settings.items()}
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise UserError(
            f"--set @{path}: no settings can be read from it ({type(error).__name__}: {error}); expected a file that "
            f"`{PROGRAM} calibrate METHOD --output FILE` wrote"
        ) from error


def search_of(name: str, settings: Mapping[str, str]) -> Any:
    """Construct the search of a method (`uniprune.pruning.calibration`) with fields from `--search`.

    Raises:
        UserError: the method has no search, or the search has no such field.
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
    """Convert field values to plain JSON values."""
    result: dict[str, Any] = TypeAdapter(dict[str, Any]).dump_python(dict(fields), mode="json", fallback=str)
    return result


def setting_text(value: Any) -> str:
    """Return the text after `--set field=` that means a plain value.

    Raises:
        ValueError: a number in it is not finite.
    """
    return value if isinstance(value, str) and _yaml(value) == value else to_json(value)


def _yaml(text: str) -> Any:
    """Parse a value as YAML ("0.5", "[1, 2]", "true", "null"); return the text itself if it is no YAML."""
    try:
        return parse_yaml(text)
    except ValueError:
        return text
