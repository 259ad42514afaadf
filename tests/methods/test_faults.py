"""Deliberate faults of methods (faults.yaml) are noticed by the tests that decide through them."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.faults import Fault, faulty_methods
from tests.helpers.golden_cases import FOLDER, Methods, cases
from uniprune.errors import PruningError
from uniprune.registry import METHODS

HERE = Path(__file__).parent
LEAST = 3
"""Faults of every method."""


def listed() -> Iterator[tuple[tuple[str, ...], Fault]]:
    """Yield the methods that a fault concerns, and the fault."""
    for group in yaml.safe_load((HERE / "faults.yaml").read_text(encoding="utf-8")):
        for name, (old, new) in group["faults"].items():
            fault = Fault(name, group["file"], old, new, tuple(group["caught_by"]))
            yield tuple(group["methods"]), fault


FAULTS = tuple(listed())


def runs(test: str) -> Iterator[dict[str, Any]]:
    """Yield the arguments of every run of a test, other than `methods`."""
    markers = [mark for mark in getattr(function(test), "pytestmark", []) if mark.name == "golden"]
    if not markers:
        yield {}
    for mark in markers:
        yield from ({"case": one.values[0]} for one in cases(FOLDER, *mark.args) if not one.marks)


def function(test: str) -> Any:
    """Return the test function of a name "module.test"."""
    module, name = test.split(".")
    return getattr(importlib.import_module(f"tests.methods.{module}"), name)


def passes(test: str, methods: Methods) -> bool:
    """Check whether a test passes with these methods."""
    try:
        for arguments in runs(test):
            function(test)(**arguments, methods=methods)
    except (AssertionError, PruningError):
        return False
    return True


@pytest.mark.parametrize("fault", [pytest.param(one, id=f"{one.file} {one.name}") for _, one in FAULTS])
def test_a_fault_is_noticed(fault: Fault) -> None:
    with faulty_methods(fault) as methods:
        assert not all(passes(test, methods) for test in fault.caught_by)


def test_a_copy_without_a_fault_passes_and_registers_nothing() -> None:
    before = [METHODS.get(name) for name in METHODS.names()]
    with faulty_methods(Fault("none", "_sparsevlm.py", "10", "10", ())) as methods:
        assert methods("sparsevlm") is not METHODS.get("sparsevlm")
        assert passes("test_golden_hybrid.test_sparsevlm", methods)
    assert [METHODS.get(name) for name in METHODS.names()] == before


def test_every_method_has_faults() -> None:
    counts = Counter(name for concerned, _ in FAULTS for name in concerned)
    shipped = {name for name in METHODS.names() if METHODS.get(name).__module__.startswith("uniprune.methods.")}
    assert {name: counts[name] for name in shipped if counts[name] < LEAST} == {}


@pytest.mark.parametrize("file", sorted(HERE.glob("test_golden_*.py")), ids=lambda file: file.stem)
def test_reference_vectors_go_through_the_methods_own_decision(file: Path) -> None:
    """They look methods up by name and import no inner function of theirs, but for calibration's."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("uniprune.methods"):
            assert str(node.module).startswith("uniprune.methods.calibration.")


def test_every_fault_is_caught_by_a_test_that_is_handed_the_methods() -> None:
    for _, fault in FAULTS:
        for test in fault.caught_by:
            assert "methods" in inspect.signature(function(test)).parameters, test
