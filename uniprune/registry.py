"""Names for methods, model families and benchmarks.

A decorator registers a class or function. The packages `uniprune.methods`, `uniprune.models` and
`uniprune.benchmarks` are imported at the first look-up, so `run.py --help` stays light, and a new file is all that a
new entry takes.

    @register_method("divprune", paper="arXiv 2503.02175")
    @dataclass(frozen=True, kw_only=True)
    class DivPrune(PreLLM): ...
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from uniprune.errors import UserError, unknown

C = TypeVar("C")

NAME = re.compile(r"(?!.*\.part[0-9]+$)[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
"""Form of a name, which becomes a part of file names, tables and command lines. Files of parts end in ".part1"."""


@dataclass(frozen=True)
class Entry:
    """One registered name.

    Attributes:
        name: the name.
        target: the registered class or function.
        summary: first line of its docstring.
        metadata: keyword arguments of the decorator.
    """

    name: str
    target: Any
    summary: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PublishedName:
    """The name under which a paper published what registered entries already are.

    Attributes:
        name: the name.
        means: what it is here: a registered name, or several joined by "+".
        summary: the idea in one line.
        settings: "field", or "part.field" of several parts -> value; part of the name, so not to be set otherwise.
        metadata: `paper`, `code` and `deviations`, as of an entry.
    """

    name: str
    means: str
    summary: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def spelled_out(self) -> str:
        """The meaning in words: `some-method with field=1`."""
        settings = " ".join(f"{name}={value}" for name, value in self.settings.items())
        return self.means + f" with {settings}" * bool(settings)


class Registry:
    """A table of names, filled at the first look-up.

    Args:
        kind: noun for an entry in messages ("method").
        package: package whose public modules and packages register the entries.
        reserved: names that mean something else where an entry's name is written.
    """

    def __init__(self, kind: str, package: str, reserved: Collection[str] = frozenset()) -> None:
        self.kind, self.package, self._reserved = kind, package, reserved
        self._entries: dict[str, Entry] = {}
        self._published: dict[str, PublishedName] = {}
        self._discovered = False

    def register(self, name: str, **metadata: Any) -> Callable[[C], C]:
        """Return a decorator that adds a class or function as `name`.

        Raises:
            UserError: it is no name; or another definition has it, or one that differs in case only. Registering the
                same definition again is harmless.
        """
        self._check_name(name)
        if name in self._published:
            raise UserError(
                f"{self.kind} {name!r} is a published name of {self._published[name].means}; choose another"
            )

        def add(target: C) -> C:
            taken = self._entries.get(name)
            if taken is not None and _origin(taken.target) != _origin(target):
                raise UserError(
                    f"{self.kind} {name!r} is already registered by {_origin(taken.target)}; "
                    f"choose another name for {_origin(target)}"
                )
            summary = (inspect.getdoc(target) or "").split("\n", 1)[0]
            self._entries[name] = Entry(name, target, summary, metadata)
            return target

        return add

    def publish(
        self, name: str, means: str, summary: str, settings: Mapping[str, Any] | None = None, **metadata: Any
    ) -> None:
        """Add a published name of what registered entries already are; see `PublishedName`.

        Raises:
            UserError: it is no name, or that of an entry, or of something else.
        """
        self._check_name(name)
        new = PublishedName(name, means, summary, dict(settings or {}), metadata)
        if name in self._entries or self._published.setdefault(name, new) != new:
            raise UserError(f"{self.kind} {name!r} is already registered; choose another name")

    def _check_name(self, name: str) -> None:
        """Raise UserError if it is no name, or differs from another one in case only."""
        if not NAME.fullmatch(name) or name.casefold() in self._reserved:
            reserved = f", and not {' or '.join(sorted(self._reserved))}" if self._reserved else ""
            raise UserError(
                f"{name!r} cannot be the name of a {self.kind}, because names are parts of file names and command "
                "lines; expected a letter or digit, then at most 63 letters, digits, points, hyphens, underscores or "
                f"plus signs, without the ending .part1{reserved}"
            )
        for other in (*self._entries, *self._published):
            if other != name and other.casefold() == name.casefold():
                raise UserError(
                    f"{self.kind} {name!r} differs from {other!r} in case only, which some file systems do not "
                    "distinguish; choose another name"
                )

    def discover(self) -> None:
        """Import every public module and package of `package`, once."""
        if self._discovered:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{self.package}.{module.name}")
        self._discovered = True  # last: if an import fails, the next look-up reports that again

    def entry(self, name: str) -> Entry:
        """Return the entry of a name.

        Raises:
            UserError: the name is unknown; the message lists the nearest ones.
        """
        self.discover()
        if name in self._published:
            meaning = self._published[name].spelled_out
            raise UserError(f"{name!r} is a published name of {meaning}; that is expected here")
        if name not in self._entries:
            raise unknown(self.kind, name, (*self._entries, *self._published))
        return self._entries[name]

    def get(self, name: str) -> Any:
        """Return the class or function of a name.

        Raises:
            UserError: the name is unknown; the message lists the nearest ones.
        """
        return self.entry(name).target

    def names(self, pattern: str = "*") -> list[str]:
        """Return the names that match a glob pattern, sorted."""
        self.discover()
        return sorted(fnmatch.filter(self._entries, pattern))

    def published(self, pattern: str = "*") -> dict[str, PublishedName]:
        """Return the published names that match a glob pattern, sorted."""
        self.discover()
        return {name: self._published[name] for name in sorted(fnmatch.filter(self._published, pattern))}


def _origin(target: Any) -> str:
    """Return "file:line" of a definition, or its qualified name if its source is unavailable."""
    try:
        return f"{inspect.getsourcefile(target)}:{inspect.getsourcelines(target)[1]}"
    except (OSError, TypeError):
        return f"{target.__module__}.{target.__qualname__}"


def load_plugin(path: str | Path) -> None:
    """Import a Python file that registers methods, models or benchmarks (`--plugin my_method.py`).

    Raises:
        UserError: the file does not exist or fails to import; the message gives the reason.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise UserError(f"plugin {str(path)!r} is not a file; give the path of a Python file that registers something")
    # The hash separates files of one name in different folders.
    name = f"uniprune_plugin_{file.stem}_{hashlib.sha256(bytes(file)).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"plugin {str(path)!r} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"plugin {str(path)!r} failed to import: {type(error).__name__}: {error}") from error


METHODS = Registry("method", "uniprune.methods")
MODELS = Registry("model family", "uniprune.models")
BENCHMARKS = Registry("benchmark", "uniprune.benchmarks", reserved={"record", "average"})

register_method = METHODS.register
publish_method = METHODS.publish
register_model = MODELS.register
register_benchmark = BENCHMARKS.register
