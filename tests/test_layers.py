"""The order of packages, and that `uniprune/` names no method, model family or dataset."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT, TESTS

ORDER = ("errors", "registry", "utils", "results", "pruning", "modeling", "engine", "evaluation",
         ("conformance", "latency", "tuning"), "reports", "cli")  # fmt: skip
"""An entry of `uniprune/` imports only entries of earlier steps, and itself."""
ALONE = "synthetic"
"""Imports no other entry; every entry may import it."""
RANK = {name: i for i, step in enumerate(ORDER) for name in ((step,) if isinstance(step, str) else step)}
OUTSIDE = {
    "methods": {"engine", "errors", "pruning", "registry", "tuning"},  # engine: searches run un-pruned prompts
    "models": {"errors", "modeling", "pruning", "registry", "utils", ALONE},
    "benchmarks": {"errors", "evaluation", "modeling", "registry", "results", "utils", ALONE},
}
"""Exactly what the folders beside `uniprune/` import from it."""
OTHER_TESTS = {"golden", "helpers", "packaging", "perf", "plugins", "serving"}
"""Folders of `tests/` that mirror no package."""


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def entry_files(entry: str) -> list[Path]:
    path = ROOT / "uniprune" / entry
    return modules(f"uniprune/{entry}") if path.is_dir() else [path.with_suffix(".py")]


def package_of(path: Path) -> tuple[str, ...]:
    """Return the package of a file, which relative imports start from."""
    folder = path.relative_to(ROOT).parent.parts
    return folder if folder[0] == "uniprune" else ("uniprune", *folder)


def imported(source: str, package: tuple[str, ...]) -> set[str]:
    """Return absolute names of everything a source imports, wherever the statement is."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            name = ".".join(filter(None, (base, node.module)))
            found.update({name, *(f"{name}.{alias.name}" for alias in node.names)})
    return found


def imports(path: Path) -> set[str]:
    return imported(path.read_text(encoding="utf-8"), package_of(path))


def used(path: Path) -> set[str]:
    """Return the entries of `uniprune` that a file imports from; public names count, as they hide an entry."""
    names = {name.split(".")[1] for name in imports(path) if name.startswith("uniprune.")}
    return names - {"__version__"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import uniprune.engine.session", "uniprune.engine.session"),
        ("from uniprune.engine import prune", "uniprune.engine.prune"),
        ("from uniprune import engine", "uniprune.engine"),
        ("from ..engine.session import prune", "uniprune.engine.session.prune"),
        ("from .. import engine", "uniprune.engine"),
        ("from . import base", "uniprune.pruning.base"),
        ("if TYPE_CHECKING:\n    from uniprune.engine import prune", "uniprune.engine.prune"),
        ("def f():\n    try:\n        import uniprune.engine\n    except ImportError: ...", "uniprune.engine"),
    ],
)
def test_every_way_to_import_is_noticed(source: str, expected: str) -> None:
    assert expected in imported(source, ("uniprune", "pruning"))


def test_every_entry_of_the_package_has_its_place() -> None:
    entries = {path.stem for path in (ROOT / "uniprune").iterdir() if not path.name.startswith("__")} - {"py"}
    assert entries == {*RANK, ALONE}
    assert len(entries) <= 14


@pytest.mark.parametrize("entry", [*RANK, ALONE])
def test_packages_import_only_what_comes_before_them(entry: str) -> None:
    before = {name for name in RANK if entry in RANK and RANK[name] < RANK[entry]} | {entry, ALONE}
    wrong = {(str(file.relative_to(ROOT)), name) for file in entry_files(entry) for name in used(file) - before}
    assert not wrong


def test_the_order_has_no_step_to_spare() -> None:
    """Every step but the first imports an entry of an earlier one, or the order says more than the code."""
    for entry in [*RANK][1:]:
        assert {name for file in entry_files(entry) for name in used(file)} & RANK.keys() - {entry}, entry


@pytest.mark.parametrize("package", OUTSIDE)
def test_folders_beside_the_package_import_exactly_what_they_may(package: str) -> None:
    found = {name: path for path in modules(package) for name in used(path) - {package}}
    assert found.keys() == OUTSIDE[package], found
    foreign = {name.split(".")[0] for path in modules(package) for name in imports(path)}
    assert not foreign & {*OUTSIDE, "tests", "run"}


def test_tests_mirror_the_packages() -> None:
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert folders - OTHER_TESTS <= {*RANK, ALONE, *OUTSIDE}
    assert folders >= OTHER_TESTS


@pytest.mark.parametrize(
    "code",
    [
        "from uniprune.cli import discover; from uniprune.cli.parser import build_parser; build_parser(discover())",
        "import pkgutil, importlib, uniprune.results as r\n"
        "names = [m.name for m in pkgutil.walk_packages(r.__path__, 'uniprune.results.')]\n"
        "assert names\nfor name in names: importlib.import_module(name)",
    ],
    ids=["parser", "results"],
)
def test_results_and_the_parser_import_no_torch(code: str) -> None:
    check = "import sys\nheavy = {'torch', 'transformers'} & sys.modules.keys()\nassert not heavy, heavy"
    subprocess.run([sys.executable, "-c", f"{code}\n{check}"], cwd=ROOT, check=True)


def words(path: Path) -> Iterator[str]:
    """Yield names and strings in code; docstrings may give examples."""
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
            case ast.Name(id=text) | ast.Attribute(attr=text) | ast.arg(arg=text) | ast.keyword(arg=str() as text):
                yield text
            case ast.ClassDef(name=text) | ast.FunctionDef(name=text) | ast.AsyncFunctionDef(name=text):
                yield text


WORDS = {"scope", "resize"}
"""Names of methods that are words of the harness, too: `scope` is a field of all methods, images have `resize`."""


def naming(names: set[str], files: list[Path]) -> set[tuple[str, str]]:
    """Return (file, word) of every word in code that contains one of the names as a word of its own."""
    pattern = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, sorted(names))) + r")(?![\w-])", re.IGNORECASE)
    return {(str(path.relative_to(ROOT)), word) for path in files for word in words(path) if pattern.search(word)}


def test_uniprune_names_no_method_family_or_dataset() -> None:
    from uniprune.registry import BENCHMARKS, METHODS, MODELS

    entries = [registry.entry(name) for registry in (METHODS, MODELS, BENCHMARKS) for name in registry.names()]
    # Tests of other modules may have loaded plugins.
    own = [entry for entry in entries if entry.target.__module__.startswith("uniprune.")]
    concrete = {entry.name for entry in own} - {"none"} - WORDS
    classes = {entry.target.__name__ for entry in own if isinstance(entry.target, type)}
    classes = {name for name in classes if name.lower() not in WORDS}
    for folder in OUTSIDE:  # the search finds them where they are
        assert naming(concrete, modules(folder))
    files = [path for path in modules("uniprune") if ALONE not in path.parts]
    assert not naming(concrete | classes, files)


def test_tuning_names_no_strategy() -> None:
    """Names that are ordinary words ("random", "entropy", "full") also mean other things there."""
    from uniprune.tuning.strategy import SAMPLES, TOKENS

    distinctive = {"fastv", "infobatch", "longest", "reversed-ppl", "rho-1", "sparsevlm"}
    assert distinctive <= {*SAMPLES.names(), *TOKENS.names()}
    assert naming(distinctive, modules("methods/tuning"))
    assert not naming(distinctive, modules("uniprune/tuning"))
