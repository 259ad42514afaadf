"""Hash of the source files that determine a method's decisions; part of a run's identity."""

from __future__ import annotations

import ast
import dataclasses
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from uniprune.modeling.checkpoints import fingerprint
from uniprune.pruning.base import Pruner
from uniprune.pruning.text_checkpoint import text_checkpoint
from uniprune.registry import METHODS
from uniprune.utils.hashing import files_hash
from uniprune.utils.paths import PACKAGE, ROOT

RULES = tuple(
    f"uniprune.pruning.{name}"
    for name in (
        *("functional", "merging", "grids", "greedy", "greedy_triton", "clustering", "schedules"),
        *("clustering_triton", "rules_triton", "thinning", "thinning_triton"),
    )
)
"""Modules of this package that make decisions for methods; the others execute them."""


def code_hash(classes: Iterable[type]) -> str:
    """Hash the files that decide for the given classes, 16 hex digits; folders do not count."""
    files = {file for kind in classes for file in sources(kind)}
    return files_hash((file.name, file) for file in files)


def sources(kind: type) -> set[Path]:
    """Return the file that defines a class and all files it imports, directly or not, that make decisions.

    These are the embedded methods and their helpers, `RULES`, and files in the folder of the class's own file. Except
    for `RULES`, modules that are not imported yet have decided nothing.
    """
    own = _file(kind.__module__)
    found: dict[str, Path] = {}
    waiting = [kind.__module__]
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if file is None or name in found:
            continue
        package = name.startswith(f"{METHODS.package}.")
        if name == kind.__module__ or package or name in RULES or (own and file.parent == own.parent):
            found[name] = file
            waiting += _imported(file.read_bytes(), name)
    return set(found.values())


@lru_cache(maxsize=1024)
def _imported(source: bytes, name: str) -> tuple[str, ...]:
    """Return the names in all import statements of a module; some may be no modules.

    Remembered by the text: a run hashes a hundred files, and a plan of a hundred runs hashes the same ones.
    """
    return tuple(_import_statements(source, name))


def _import_statements(source: bytes, name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = name.split(".")[:-level] if level else []
                start = ".".join([*base, *([module] if module else [])])
                yield start
                yield from (f"{start}.{alias.name}" for alias in names)


def identity_fields(pruner: Pruner) -> dict[str, Any]:
    """Return the fields of a method; of a checkpoint that it reads the content, hashed, and not the folder."""
    fields = {field.name: getattr(pruner, field.name) for field in dataclasses.fields(pruner)}
    folder = text_checkpoint(pruner)
    return fields if folder is None else fields | {"text_checkpoint": fingerprint(Path(folder).expanduser())}


def package_hash() -> str:
    """Hash the files that execute a measurement: this package and the model families, 16 hex digits.

    Equal in a checkout and in a wheel, where methods, families and benchmarks are inside the package.
    """
    apart = tuple(ROOT / name for name in ("methods", "models", "benchmarks"))
    files = [file for file in PACKAGE.rglob("*.py") if not any(file.is_relative_to(folder) for folder in apart)]
    named = {f"uniprune/{file.relative_to(PACKAGE).as_posix()}": file for file in files}
    named |= {file.relative_to(ROOT).as_posix(): file for file in (ROOT / "models").rglob("*.py")}
    return files_hash(named.items())


def _file(name: str) -> Path | None:
    """Return the source file of an imported module or of one of `RULES`, None if it has none."""
    if name in RULES:  # some are imported on first use, which must not change a run's identity
        path = getattr(find_spec(name), "origin", None)
    else:
        path = getattr(sys.modules.get(name), "__file__", None)
    return None if path is None else Path(path).resolve()
