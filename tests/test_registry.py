"""Registries: registration, suggestions, plugins and lazy discovery."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from uniprune.errors import UserError, unknown
from uniprune.registry import BENCHMARKS, METHODS, Registry, load_plugin
from uniprune.tuning.strategy import SAMPLES, TOKENS


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty package that can be imported."""
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield "things"
    for name in [name for name in sys.modules if name.split(".")[0] == "things"]:
        del sys.modules[name]


def test_entries_carry_summary_and_metadata(package: str) -> None:
    registry = Registry("thing", package)

    @registry.register("first", paper="arXiv 1")
    class First:
        """The first thing.

        More.
        """

    entry = registry.entry("first")
    assert (entry.target, entry.summary, entry.metadata) == (First, "The first thing.", {"paper": "arXiv 1"})


def test_a_taken_name_is_refused_but_the_same_definition_is_not(package: str) -> None:
    registry = Registry("thing", package)

    def one() -> None: ...
    def two() -> None: ...

    registry.register("name")(one)
    registry.register("name")(one)
    with pytest.raises(UserError, match=r"already registered by .*test_registry"):
        registry.register("name")(two)


def test_discovery_imports_public_modules_and_packages_only(package: str, tmp_path: Path) -> None:
    (tmp_path / "things" / "module.py").touch()
    (tmp_path / "things" / "_private.py").touch()
    (tmp_path / "things" / "folder").mkdir()
    (tmp_path / "things" / "folder" / "__init__.py").touch()
    (tmp_path / "things" / "folder" / "deeper.py").touch()
    assert Registry("thing", package).names() == []
    imported = {name for name in sys.modules if name.startswith("things")}
    assert imported == {"things", "things.module", "things.folder"}


def test_a_module_that_fails_to_import_fails_at_every_look_up(package: str, tmp_path: Path) -> None:
    (tmp_path / "things" / "broken.py").write_text("import no_such_module\n")
    registry = Registry("thing", package)
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            registry.names()


def test_packages_among_the_methods_have_registries_of_their_own() -> None:
    assert SAMPLES.names()
    assert TOKENS.names()
    assert all(METHODS.get(name).__module__.count(".") == 2 for name in METHODS.names() if name not in plugins())


@pytest.mark.parametrize(
    ("name", "hint"), [("divprun", "did you mean 'divprune'"), ("zzz", "known: divprune, fastv"), ("", "known: ")]
)
def test_unknown_names_lead_to_near_ones(name: str, hint: str) -> None:
    assert hint in str(unknown("method", name, ["fastv", "divprune"]))


def plugins() -> set[str]:
    """Methods that other tests registered from outside."""
    return {name for name in METHODS.names() if not METHODS.get(name).__module__.startswith("uniprune.methods.")}


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


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/a",
        "a\\b",
        "~",
        "-a",
        "a b",
        "a*",
        "a[b]",
        "\0",
        "ü",
        "a\n",
        "x" * 65,
        "pope.part1",
    ],
)
def test_names_that_are_no_part_of_a_path_or_a_command_line_are_refused(name: str, package: str) -> None:
    for registry in (Registry("thing", package), BENCHMARKS):
        with pytest.raises(UserError, match="cannot be the name of a"):
            registry.register(name)


def test_names_of_other_files_and_names_that_differ_in_case_are_refused(package: str) -> None:
    for name in ("record", "Average"):
        with pytest.raises(UserError, match=f"'{name}' cannot be the name of a benchmark.* and not average or record"):
            BENCHMARKS.register(name)
    registry = Registry("thing", package)
    registry.register("Pope-v1.0+")(Path)
    registry.register("Pope-v1.0+")(Path)
    with pytest.raises(UserError, match=r"thing 'pope-V1.0\+' differs from 'Pope-v1.0\+' in case only"):
        registry.register("pope-V1.0+")
