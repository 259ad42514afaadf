"""Names for methods, model families and benchmarks.

A class announces itself with a decorator; the packages `uniprune.methods`, `uniprune.models` and `uniprune.benchmarks`
are imported on the first look-up only, so `run.py --help` stays light and adding a file is all it takes to add an
entry.

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
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from uniprune.errors import UserError, unknown

C = TypeVar("C")


@dataclass(frozen=True)
class Entry:
    """One registered name: the object itself, the first line of its docstring and what the decorator was told."""

    name: str
    target: Any
    summary: str
    metadata: dict[str, Any] = field(default_factory=dict)


class Registry:
    """A lazily filled table of names.

    Args:
        kind: what an entry is called in messages ("method").
        package: the package whose modules register the entries; imported on first use.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._entries: dict[str, Entry] = {}
        self._discovered = False

    def register(self, name: str, **metadata: Any) -> Callable[[C], C]:
        """Decorator that adds a class or function under `name`.

        Raises:
            UserError: the name is taken by something else (importing the very same definition again is harmless).
        """

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

    def discover(self) -> None:
        """Import every public module of the package once."""
        if self._discovered:
            return
        self._discovered = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{self.package}.{module.name}")

    def entry(self, name: str) -> Entry:
        """The entry called `name`. Raises UserError with the nearest names otherwise."""
        self.discover()
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def get(self, name: str) -> Any:
        """The registered object called `name`. Raises UserError with the nearest names otherwise."""
        return self.entry(name).target

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names that match a glob pattern."""
        self.discover()
        return sorted(fnmatch.filter(self._entries, pattern))


def _origin(target: Any) -> str:
    """Where a definition lives, as "file:line" (or its qualified name when the source is gone)."""
    try:
        return f"{inspect.getsourcefile(target)}:{inspect.getsourcelines(target)[1]}"
    except (OSError, TypeError):
        return f"{target.__module__}.{target.__qualname__}"


def load_plugin(path: str | Path) -> None:
    """Import one Python file of a user, so that what it registers can be named (`--plugin my_method.py`).

    Raises:
        UserError: the file does not exist, or fails to import (the reason is in the message).
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise UserError(f"plugin {str(path)!r} is not a file; give the path of a Python file that registers something")
    # Files of one name in different folders are different modules.
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
BENCHMARKS = Registry("benchmark", "uniprune.benchmarks")

register_method = METHODS.register
register_model = MODELS.register
register_benchmark = BENCHMARKS.register
