"""Deliberate faults in the sources of methods, compiled in memory: milliseconds each, where mutations.py takes seconds.

`faulty_methods` looks methods up like the registry, but in copies of their modules, in one of which a text is replaced.
Nothing is registered, and the modules proper are back in `sys.modules` afterwards.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tests.helpers.golden_cases import Methods
from tests.helpers.paths import ROOT
from uniprune.registry import METHODS

PACKAGE = "uniprune.methods"


@dataclass(frozen=True)
class Fault:
    """One deliberate fault.

    Attributes:
        name: the broken behaviour.
        file: the source file in methods/.
        old: text that occurs once in it.
        new: its replacement.
        caught_by: "module.test" in tests/methods, one of which must fail.
    """

    name: str
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...]


@contextmanager
def faulty_methods(fault: Fault) -> Iterator[Methods]:
    """Give a look-up of method classes by name, of sources with a fault.

    Raises:
        ValueError: the text to replace does not occur exactly once.
    """
    METHODS.discover()
    originals = {name: module for name, module in sys.modules.items() if name.startswith(f"{PACKAGE}.")}
    broken, copies = f"{PACKAGE}.{fault.file.removesuffix('.py')}", dict[str, ModuleType]()

    def copied(name: str) -> ModuleType:
        if name not in copies:
            copies[name] = sys.modules[name] = module = ModuleType(name)
            module.__package__ = PACKAGE
            source = (ROOT / "methods" / f"{name.removeprefix(f'{PACKAGE}.')}.py").read_text(encoding="utf-8")
            if name == broken:
                if source.count(fault.old) != 1:
                    raise ValueError(f"{fault.name}: {fault.old!r} occurs {source.count(fault.old)} times")
                source = source.replace(fault.old, fault.new)
            tree = _unregistered(source)
            for helper in _helpers(tree):  # one of them may import the broken module
                copied(f"{PACKAGE}.{helper}")
            exec(compile(tree, name, "exec"), vars(module))
        return copies[name]

    def look_up(name: str) -> Any:
        method = METHODS.get(name)
        return getattr(copied(method.__module__), method.__name__)

    try:
        copied(broken)
        yield look_up
    finally:
        sys.modules.update(originals)


def _helpers(tree: ast.Module) -> list[str]:
    """Return the modules `_name` of methods/ from which a module imports."""
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level == 1]
    return [node.module for node in imports if node.module and node.module.startswith("_")]


def _unregistered(source: str) -> ast.Module:
    """Return the syntax tree of a method's module without its registrations."""
    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            node.decorator_list = [one for one in node.decorator_list if "register_method" not in ast.dump(one)]
    return tree
