"""No cell, prediction or judge's reply is run as Python: what VLMEvalKit calls to evaluate texts reads literals."""

from __future__ import annotations

import ast
import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

KIT = "vlmeval."


def read_literal(source: object, *scopes: object) -> object:
    """Return the value of a Python literal, where the kit calls `eval`.

    Raises:
        ValueError: the text is anything else, so that running it would run code.
    """
    try:
        return ast.literal_eval(str(source))
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError(f"{str(source)[:80]!r} is not a literal; VLMEvalKit would run it as Python") from error


def run_nothing(source: object, *scopes: object) -> None:
    """Raise ValueError, where the kit calls `exec`."""
    raise ValueError(f"VLMEvalKit would run {str(source)[:80]!r} as Python")


INSTEAD: Mapping[str, Callable[..., object]] = {"eval": read_literal, "exec": run_nothing}
"""Built-in functions that run a text -> what the kit's modules find under their names."""


class _Loader(SourceFileLoader):
    """Runs a module in which these functions are exchanged from its first line on."""

    def exec_module(self, module: ModuleType) -> None:
        """As in the base class."""
        vars(module).update(INSTEAD)
        super().exec_module(module)


class _Finder:
    """Finds modules of the kit that are imported meanwhile."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the usual spec, with a loader of ours for a source file of the kit; None for other modules."""
        spec = PathFinder.find_spec(name, path, target) if name.startswith(KIT) else None
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


@contextlib.contextmanager
def literals_only() -> Iterator[None]:
    """Exchange `eval` and `exec` in every module of the kit inside a block, also in those imported meanwhile.

    A module finds its own names before the built-in ones, so one entry in it replaces all its calls, whichever column
    or reply they are for. Blocks may be nested.
    """
    if _Finder in sys.meta_path:
        yield
        return
    for names in _kit_modules():
        for name, function in INSTEAD.items():
            names.setdefault(name, function)
    sys.meta_path.insert(0, _Finder)
    try:
        yield
    finally:
        sys.meta_path.remove(_Finder)
        for names in _kit_modules():
            for name, function in INSTEAD.items():
                if names.get(name) is function:
                    del names[name]


def _kit_modules() -> list[dict[str, Any]]:
    """Return the names of every imported module of the kit."""
    return [vars(sys.modules[name]) for name in [*sys.modules] if name.startswith(KIT)]
