"""Names: registration, suggestions, plugins and lazy discovery."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from uniprune.errors import UserError, unknown
from uniprune.registry import METHODS, Registry, load_plugin


def test_entries_carry_summary_and_metadata() -> None:
    registry = Registry("thing", "methods")

    @registry.register("first", paper="arXiv 1")
    class First:
        """The first thing.

        More.
        """

    entry = registry.entry("first")
    assert (entry.target, entry.summary, entry.metadata) == (First, "The first thing.", {"paper": "arXiv 1"})


def test_a_taken_name_is_refused_but_the_same_definition_is_not() -> None:
    registry = Registry("thing", "methods")

    def one() -> None: ...
    def two() -> None: ...

    registry.register("name")(one)
    registry.register("name")(one)
    with pytest.raises(UserError, match=r"already registered by .*test_registry"):
        registry.register("name")(two)


@pytest.mark.parametrize(
    ("name", "hint"), [("divprun", "did you mean 'divprune'"), ("zzz", "known: divprune, fastv"), ("", "known: ")]
)
def test_unknown_names_are_answered_with_names(name: str, hint: str) -> None:
    assert hint in str(unknown("method", name, ["fastv", "divprune"]))


def test_discovery_finds_methods_and_globs_them() -> None:
    assert {"none", "random-pre", "divprune"} <= set(METHODS.names())
    assert set(METHODS.names("random*")) == {n for n in METHODS.names() if n.startswith("random")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a file"),
        ("import no_such_module", "failed to import: ModuleNotFoundError"),
        ("def f(:", "failed to import: SyntaxError"),
        ("from uniprune.errors import UserError\nraise UserError('mine')", "mine"),
    ],
)
def test_bad_plugins_say_why(content: str | None, message: str, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin.py"
    if content is not None:
        plugin.write_text(content)
    with pytest.raises(UserError, match=message):
        load_plugin(plugin)


def test_plugins_of_one_file_name_do_not_replace_each_other(tmp_path: Path) -> None:
    registered = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(f"NAME = {folder!r}\n")
        before = set(sys.modules)
        load_plugin(tmp_path / folder / "mine.py")
        registered += [sys.modules[name] for name in set(sys.modules) - before]
    assert [module.NAME for module in registered] == ["a", "b"]


def test_importing_the_registry_imports_no_torch() -> None:
    code = "import sys, uniprune.registry, uniprune.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
