"""Names that `import uniprune` offers: lazy names, methods by class and by name, README's example."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import uniprune
import uniprune.methods
from tests.helpers.paths import ROOT
from tests.helpers.readme import PREPARATION, library_example
from uniprune.pruning.base import Pruner
from uniprune.registry import METHODS

PUBLIC = sorted({*uniprune.__all__} - {"__version__"})
EMBEDDED = [name for name in METHODS.names() if METHODS.get(name).__module__.startswith("uniprune.methods.")]


def typed() -> Iterator[str]:
    """Names that `uniprune/__init__.py` imports for type checkers only."""
    tree = ast.parse((ROOT / "uniprune" / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for statement in node.body:
                assert isinstance(statement, ast.ImportFrom)
                yield from (alias.name for alias in statement.names)


def test_the_package_imports_no_torch() -> None:
    code = "import sys, uniprune, uniprune.methods; dir(uniprune); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_exists_and_has_a_docstring(name: str) -> None:
    value = getattr(uniprune, name)
    assert (value.__doc__ or "").strip()
    assert name in dir(uniprune)


def test_type_checkers_see_the_same_names() -> None:
    assert sorted(typed()) == PUBLIC
    assert sorted(name for names in uniprune._EXPORTS.values() for name in names) == PUBLIC
    assert len(uniprune.__all__) == len(set(uniprune.__all__))


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="module 'uniprune' has no attribute 'prun'"):
        uniprune.prun  # noqa: B018


@pytest.mark.parametrize("name", EMBEDDED)
def test_every_embedded_method_is_imported_by_its_class_name(name: str) -> None:
    method = METHODS.get(name)
    assert getattr(uniprune.methods, method.__name__) is method
    assert method.__name__ in dir(uniprune.methods)


@pytest.mark.parametrize("name", ["DivPrun", "divprun", "__wrapped__"])
def test_other_names_of_methods_are_refused(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'uniprune.methods' has no attribute '{name}'"):
        getattr(uniprune.methods, name)


def test_a_plugin_is_no_embedded_method(tmp_path: Path) -> None:
    file = tmp_path / "plugin.py"
    file.write_text(
        "from uniprune import Pruner, register_method\n"
        "@register_method('outside')\nclass Outside(Pruner):\n    '''A plugin.'''\n"
    )
    uniprune.load_plugin(file)
    try:
        with pytest.raises(AttributeError, match="no attribute 'Outside'"):
            uniprune.methods.Outside  # noqa: B018
    finally:
        del METHODS._entries["outside"]


def test_a_method_is_loaded_by_name() -> None:
    method = uniprune.load_method("fastv", ratio=0.111, layer=3)
    assert isinstance(method, Pruner)
    assert method == METHODS.get("fastv")(ratio=0.111, layer=3)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("divprun", {}, "unknown method 'divprun'; did you mean 'divprune'"),
        ("divprune", {"ratoi": 0.1}, "unknown field of method 'divprune': 'ratoi'; did you mean 'ratio'"),
        ("divprune", {"ratio": 2}, "keep ratio 2 is outside"),
    ],
)
def test_a_wrong_name_field_or_value_is_a_user_error(name: str, fields: dict[str, float], message: str) -> None:
    with pytest.raises(uniprune.UserError, match=re.escape(message)):
        uniprune.load_method(name, **fields)


def test_a_missing_field_is_a_user_error(tmp_path: Path) -> None:
    file = tmp_path / "plugin.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom uniprune import PreLLM, register_method\n"
        "@register_method('demanding')\n@dataclass(frozen=True, kw_only=True)\n"
        "class Demanding(PreLLM):\n    '''A plugin.'''\n    step: int\n"
    )
    uniprune.load_plugin(file)
    try:
        with pytest.raises(uniprune.UserError, match=r"'demanding' requires a value of 'step'; pass step=\.\.\."):
            uniprune.load_method("demanding")
        assert uniprune.load_method("demanding", step=2) is not None
    finally:
        del METHODS._entries["demanding"]


@pytest.mark.parametrize("model", ["llava", "qwen2.5-vl"])
def test_the_readme_example_prunes(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(PREPARATION + library_example(str(ROOT / "models" / "tiny" / model)), scope)
    (report,) = scope["session"].reports  # type: ignore[attr-defined]
    (row,) = report.rows
    assert report.pruned
    assert set(row.entering) == {round(0.111 * row.initial)}
    assert capsys.readouterr().out.endswith(f"{row.entering}\n")
