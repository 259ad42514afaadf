"""The parts of the style guide (AGENTS.md) that a program can check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.paths import ROOT, TESTS

FOLDERS = ("uniprune", "methods", "models", "benchmarks")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
QUESTION = re.compile(r"(What|Whether|How|Who|Where|Which|Why)\b")


def trees(paths: list[Path]) -> Iterator[tuple[Path, ast.Module]]:
    for path in paths:
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_there_are_sources() -> None:
    assert len(SOURCES) > 150


def test_source_files_are_at_most_300_lines() -> None:
    long = {path.name: lines for path in SOURCES if (lines := path.read_text(encoding="utf-8").count("\n")) > 300}
    assert not long


def test_docstrings_are_no_questions() -> None:
    """Those of modules, classes and functions, and those behind attributes; in tests, too."""
    wrong = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for path, tree in trees([*SOURCES, *sorted(TESTS.rglob("*.py"))])
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if QUESTION.match(text := str(node.value.value))
    ]
    assert not wrong


def test_every_expected_error_names_its_message() -> None:
    calls = [
        (path, call)
        for path, tree in trees(sorted(TESTS.rglob("*.py")))
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.raises"
    ]
    assert len(calls) > 100
    silent = [f"{path.relative_to(ROOT)}:{call.lineno}" for path, call in calls
              if not any(keyword.arg == "match" for keyword in call.keywords)]  # fmt: skip
    assert not silent
