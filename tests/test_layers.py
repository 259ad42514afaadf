"""The direction of the arrows: who may import whom, and that `uniprune/` names nothing concrete."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PACKAGES = ("uniprune", "methods", "models", "benchmarks")


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_towards_uniprune(package: str) -> None:
    forbidden = {*PACKAGES, "tests", "run"} - {package, "uniprune"}
    wrong = {(str(path.relative_to(ROOT)), name) for path in modules(package) for name in imports(path)
             if name.split(".")[0] in forbidden}  # fmt: skip
    assert not wrong


def test_the_engine_knows_nothing_of_evaluation() -> None:
    allowed = {"budget", "engine", "errors", "family", "pruner", "registry", "timing", "view"}
    used = {name.split(".")[1] for path in modules("uniprune/engine") for name in imports(path)
            if name.startswith("uniprune.")}  # fmt: skip
    assert used <= allowed


def words(path: Path) -> Iterator[str]:
    """Names and strings in code; docstrings may give examples."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documents = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                documents.add(id(statement.value))
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str() as text) if id(node) not in documents:
                yield text
            case ast.Name(id=text) | ast.Attribute(attr=text) | ast.ClassDef(name=text) | ast.FunctionDef(name=text):
                yield text


def test_uniprune_names_no_method_family_or_dataset() -> None:
    from uniprune.registry import BENCHMARKS, METHODS, MODELS

    entries = [registry.entry(name) for registry in (METHODS, MODELS, BENCHMARKS) for name in registry.names()]
    # Tests of other modules may have loaded plugins.
    concrete = {e.name for e in entries if e.target.__module__.split(".")[0] in PACKAGES} - {"none"}
    pattern = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, sorted(concrete))) + r")(?![\w-])", re.IGNORECASE)
    named = {
        (str(path.relative_to(ROOT)), word)
        for path in modules("uniprune")
        if "scenes" not in path.parts
        for word in words(path)
        if pattern.search(word)
    }
    assert not named


def test_tuning_names_no_strategy() -> None:
    """Names that are ordinary words ("random", "entropy", "full") also mean other things there."""
    from uniprune.tuning.strategy import SAMPLES, TOKENS

    distinctive = {"fastv", "infobatch", "longest", "reversed-ppl", "rho-1", "sparsevlm"}
    assert distinctive <= {*SAMPLES.names(), *TOKENS.names()}
    pattern = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, sorted(distinctive))) + r")(?![\w-])", re.IGNORECASE)
    assert not {
        (path.name, word) for path in modules("uniprune/tuning") for word in words(path) if pattern.search(word)
    }
