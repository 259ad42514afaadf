"""The direction of imports, and that `uniprune/` names no method, model family or dataset."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

ORDER = ("errors", "registry", "utils", "results", "pruning", "modeling", "engine", "evaluation",
         ("conformance", "latency", "tuning"), "reports", "cli")  # fmt: skip
"""An entry of the package imports only entries of earlier steps, and itself."""
ALONE = "synthetic"
"""Imports nothing of the package; everything may import it."""
RANK = {name: i for i, step in enumerate(ORDER) for name in ((step,) if isinstance(step, str) else step)}
OUTSIDE = {
    "methods": {"errors", "registry", "pruning", "engine", "tuning"},  # the engine: for searches of settings
    "models": {"errors", "modeling", "pruning", "registry", "utils", "evaluation", "engine", "results", ALONE},
    "benchmarks": {"errors", "evaluation", "modeling", "registry", "results", "utils", ALONE, "cli", "reports"},
}
"""What the folders beside the package may import of it."""


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Absolute names of everything a file imports, wherever the statement is."""
    found: set[str] = set()
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = (() if parts[0] == "uniprune" else ("uniprune",)) + parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            name = ".".join(filter(None, (base, node.module)))
            found.update({name, *(f"{name}.{alias.name}" for alias in node.names)})
    return found


def used(path: Path) -> set[str]:
    """Entries of `uniprune` that a file imports from."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("uniprune.")} & {*RANK, ALONE, *OUTSIDE}


def test_every_entry_of_the_package_has_its_place() -> None:
    entries = {path.relative_to(ROOT / "uniprune").parts[0].removesuffix(".py") for path in modules("uniprune")}
    entries -= {"__init__", "__main__"}
    assert entries == {*RANK, ALONE}
    assert len(entries) <= 14


@pytest.mark.parametrize("entry", [*RANK, ALONE])
def test_packages_import_only_what_comes_before_them(entry: str) -> None:
    path = ROOT / "uniprune" / entry
    files = modules(f"uniprune/{entry}") if path.is_dir() else [path.with_suffix(".py")]
    assert files
    before = {name for name in RANK if entry in RANK and RANK[name] < RANK[entry]} | {entry, ALONE}
    wrong = {(str(file.relative_to(ROOT)), name) for file in files for name in used(file) - before}
    assert not wrong


@pytest.mark.parametrize("package", OUTSIDE)
def test_folders_beside_the_package_import_only_what_they_may(package: str) -> None:
    wrong = {(str(path.relative_to(ROOT)), name) for path in modules(package)
             for name in used(path) - OUTSIDE[package] - {package}}  # fmt: skip
    assert not wrong
    foreign = {name.split(".")[0] for path in modules(package) for name in imports(path)}
    assert not foreign & {*OUTSIDE, "tests", "run"}


@pytest.mark.parametrize(
    "code",
    [
        "from uniprune.cli import discover; from uniprune.cli.main import build_parser; build_parser(discover())",
        "import pkgutil, importlib, uniprune.results as r\n"
        "for m in pkgutil.walk_packages(r.__path__, 'uniprune.results.'): importlib.import_module(m.name)",
    ],
    ids=["parser", "results"],
)
def test_results_and_the_parser_import_no_torch(code: str) -> None:
    check = "; import sys; heavy = {'torch', 'transformers'} & sys.modules.keys(); assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code + check.replace("; ", "\n")], cwd=ROOT, check=True)


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
    concrete = {e.name for e in entries if e.target.__module__.startswith("uniprune.")} - {"none"}
    pattern = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, sorted(concrete))) + r")(?![\w-])", re.IGNORECASE)
    named = {
        (str(path.relative_to(ROOT)), word)
        for path in modules("uniprune")
        if ALONE not in path.parts
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
