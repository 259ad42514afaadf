"""docs/add-a-model.md is true: its adapter passes the engine's oracles, its test passes and notices wrong adapters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine import test_attention, test_batches, test_decoding, test_equivalence, test_session
from tests.helpers import tiny
from tests.helpers.paths import ROOT
from uniprune.cli.main import main
from uniprune.conformance import CHECKS, MethodUnderTest, Models, examine, title
from uniprune.errors import UnsupportedError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.registry import MODELS, load_plugin

pytestmark = pytest.mark.end_to_end

TEXT = (ROOT / "docs" / "add-a-model.md").read_text(encoding="utf-8")
ADAPTER, REFERENCE = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
FAMILY = "vipllava"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The adapter, registered while this module runs only."""
    file = tmp_path_factory.mktemp("plugin") / "vip_llava.py"
    file.write_text(ADAPTER, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        MODELS.discover()
        patch.setattr(MODELS, "_entries", dict(MODELS._entries))
        load_plugin(file)
        yield file
    tiny.build.cache_clear()
    tiny.small.cache_clear()


@pytest.fixture
def adapter(plugin: Path) -> Any:
    return MODELS.get(FAMILY)


def reference() -> Callable[[], None]:
    """The page's test."""
    found: dict[str, Any] = {}
    exec(compile(REFERENCE, "docs/add-a-model.md", "exec"), found)
    test: Callable[[], None] = found["test_tokens_and_scores_are_those_of_the_model"]
    return test


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_adapter_passes_the_oracles_of_the_engine(attention: str) -> None:
    test_equivalence.test_keeping_everything_is_bit_identical(FAMILY, attention, DivPrune() >> FastV())
    test_equivalence.test_pre_llm_equals_a_shorter_prompt(FAMILY, attention, 0.1, 3)
    test_equivalence.test_intra_llm_equals_masking(FAMILY, attention, {0: 0.5, 2: 0.25})
    test_batches.test_batch_equals_masking(FAMILY, attention, {0: 0.5, 2: 0.25, 4: 0.0}, (0, 2, 1))
    test_decoding.test_static_cache(FAMILY, "both", attention, (1, 2))


@pytest.mark.usefixtures("plugin")
def test_the_adapter_leaves_no_trace_and_sees_what_eager_attention_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    test_session.test_model_is_as_before_after_exit_and_exceptions(FAMILY)
    test_batches.test_row_equals_that_row_alone(FAMILY, "merge")
    test_attention.test_decoder_rows_equal_eager(FAMILY, "text", {1: 0.5}, monkeypatch)


@pytest.mark.sample(2)
@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("name", ["visionzip+fastv", "prumerge", "cdpruner", "mustdrop"])
def test_methods_keep_their_rules_on_it(name: str) -> None:
    checks = [check for check in CHECKS if title(check) != "cost"]
    findings = list(examine(MethodUnderTest(MethodSpec(name).pruner(), FAMILY, Models()), checks))
    assert [f"{one.check}: {one.result.detail}" for one in findings if one.result.outcome == "FAIL"] == []
    assert sum(one.result.outcome == "pass" for one in findings) > 15


def test_the_command_checks_on_it(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "divprune", "--plugin", str(plugin), "--family", FAMILY]) == 0
    assert f"cost ({FAMILY})" in capsys.readouterr().out


@pytest.mark.usefixtures("plugin")
def test_the_pages_test_passes() -> None:
    reference()()


FAULTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "no CLS token": ("__init__", lambda parent, self, model: (parent(self, model), setattr(self, "has_cls", False))[0]),
    "another scale": ("vision_qk", lambda parent, self, *given: (*parent(self, *given)[:2], 1.0)),
    "another order": ("features", lambda parent, self, entering, grids: parent(self, entering.flip(1), grids)),
    "another projection": ("project", lambda parent, self, features: parent(self, features.flip(-1))),
    "another block": ("vision_blocks", lambda parent, self: list(parent(self))[::-1]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_pages_test_notices(fault: str, adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name, wrong = FAULTS[fault]
    parent = getattr(adapter, name)
    monkeypatch.setattr(adapter, name, lambda self, *given: wrong(parent, self, *given))
    with pytest.raises((AssertionError, UnsupportedError), match=r"not close|VipLlava has no CLS token"):
        reference()()


def test_links_lead_somewhere() -> None:
    for page in ("add-a-model.md", "models.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        links = re.findall(r"\]\(([^)#]+)\)", text)
        files = re.findall(r"`((?:uniprune|models|tests|configs)/[\w/.]+)`", text)
        assert links and files
        assert [link for link in links if not (ROOT / "docs" / link).is_file()] == []
        assert [file for file in files if not (ROOT / file).exists()] in ([], ["tests/test_vip_llava.py"])
