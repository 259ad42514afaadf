"""Method files stay short enough to read at one go."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

FILES = sorted((ROOT / "methods").glob("*.py"))
LINES, CODE = 80, 12
"""Most lines of a file, and of code in the median registered method."""


def code_lines(path: Path) -> int:
    """Lines of classes and functions: no imports, blank lines, comments, docstrings, decorators or module constants."""
    text = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    docstrings: set[int] = set()
    tree = ast.parse(text)
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            lines |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    written = {number for number, line in enumerate(text.splitlines(), 1) if line.strip() and line.strip()[0] != "#"}
    return len(lines & written - docstrings)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_method_file_is_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES


def test_the_median_method_has_few_lines_of_code() -> None:
    counts = {path.stem: code_lines(path) for path in FILES if not path.stem.startswith("_")}
    assert statistics.median(counts.values()) <= CODE, counts


def test_code_lines_are_counted_as_described(tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(
        '"""Doc."""\nimport os\n\nX = 1\n\n\n@deco(\n    1\n)\nclass A:\n    """Doc.\n    """\n\n    # why\n    x = 1\n'
    )
    assert code_lines(file) == 2
