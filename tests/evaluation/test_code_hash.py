"""Any edit of a file that decides for a method makes another run of it, and of no other."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import ROOT
from uniprune.evaluation import code_hash as sources
from uniprune.evaluation.code_hash import code_hash
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.registry import METHODS, load_plugin


def names(method: str) -> set[str]:
    return {str(file.relative_to(ROOT)) for file in sources.sources(METHODS.get(method))}


def test_helpers_and_shared_rules_count() -> None:
    rules = {"uniprune/pruning/functional.py", "uniprune/pruning/rules_triton.py"}
    assert names("none") == {"methods/none.py"}
    assert names("divprune") == {
        "methods/divprune.py",
        "uniprune/pruning/greedy.py",
        "uniprune/pruning/greedy_triton.py",
        *rules,
    }
    assert names("prumerge") == {"methods/prumerge.py", "methods/_prumerge.py", "uniprune/pruning/merging.py", *rules}
    assert names("sparsevlm") == {
        "methods/sparsevlm.py",
        "methods/_sparsevlm.py",
        "uniprune/pruning/clustering.py",
        "uniprune/pruning/clustering_triton.py",
        "uniprune/pruning/schedules.py", *rules
    }  # fmt: skip
    assert {"methods/_mustdrop.py", "methods/_windows.py"} <= names("mustdrop")
    assert {"methods/_fitprune.py", "methods/calibration/fitprune.py"} <= names("fitprune")
    assert names("vtw") == {"methods/vtw.py", "methods/calibration/vtw.py", *rules}


def test_all_that_a_rule_imports_is_a_rule_or_carries_out() -> None:
    """Imports of shared rules count as well, even those inside functions."""
    plain = {
        "uniprune",
        "uniprune.errors",
        "uniprune.pruning",
        "uniprune.pruning.base",
        "uniprune.pruning.view",
        "uniprune.pruning.budget",
        "uniprune.pruning.fields",
        "uniprune.utils",
        "uniprune.utils.kernels",  # warns where a kernel is left out: equal choices either way
    }
    for rule in sources.RULES:
        file = sources._file(rule)
        assert file is not None
        modules = {name for name in sources._imported(file.read_bytes(), rule) if find_spec_of(name)}
        assert {name for name in modules if name.startswith("uniprune")} <= {*sources.RULES, *plain}


def find_spec_of(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # "module.function"
        return False


def test_every_rule_exists_and_is_used() -> None:
    embedded = [name for name in METHODS.names() if METHODS.get(name).__module__.startswith("uniprune.methods.")]
    used = {file for name in embedded for file in names(name)}
    assert {f"{module.replace('.', '/')}.py" for module in sources.RULES} <= used


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A method in a user's folder, with a helper that imports another helper."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "deep_helper.py").write_text("OFFSET = 0\n")
    (tmp_path / "near_helper.py").write_text("from deep_helper import OFFSET\n")
    file = tmp_path / "with_helpers.py"
    file.write_text(
        '"""A method with helpers."""\n'
        "from dataclasses import dataclass\n"
        "import near_helper\n"
        "from uniprune.pruning.base import PreLLM\n"
        "from uniprune.registry import register_method\n"
        "@register_method('with-helpers')\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class WithHelpers(PreLLM):\n"
        '    """Keeps the first tokens."""\n'
    )
    load_plugin(file)
    yield file
    METHODS._entries.pop("with-helpers")
    for name in ("near_helper", "deep_helper"):
        sys.modules.pop(name, None)


def test_an_edit_of_a_helper_is_another_run(plugin: Path) -> None:
    choice = MethodSpec("with-helpers", ratio=0.5)

    def code() -> str:
        return choice.record(choice.pruner(), [True] * 6).code

    first, others = code(), code_hash([METHODS.get("divprune")])
    for edited in (plugin, plugin.with_name("near_helper.py"), plugin.with_name("deep_helper.py")):
        before, text = code(), edited.read_text()
        edited.write_text(text + "# changed\n")
        assert code() != before
        edited.write_text(text)
        assert code() == first
    plugin.with_name("stranger.py").write_text("")
    assert code() == first
    assert code_hash([METHODS.get("divprune")]) == others


def test_an_edit_of_a_shared_rule_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = {name: code_hash([METHODS.get(name)]) for name in ("none", "divprune", "sparsevlm", "vtw")}
    path_open = Path.open

    def edited(path: Path, *arguments: Any, **options: Any) -> Any:
        file = path_open(path, *arguments, **options)
        return io.BytesIO(file.read() + b"\n") if path.name == "clustering.py" else file

    monkeypatch.setattr(Path, "open", edited)
    assert {name for name, code in codes.items() if code_hash([METHODS.get(name)]) != code} == {"sparsevlm"}
