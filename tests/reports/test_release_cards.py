"""docs/releases.md is made of the findings in methods' cards, and every finding has a test that shows it."""

from __future__ import annotations

import ast
import json
import re

import pytest

from tests.helpers.paths import ROOT
from uniprune.cli.main import main
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.registry import METHODS, Entry
from uniprune.reports.method_cards import embedded
from uniprune.reports.release_cards import findings, release_cards

ENTRIES = [entry for entry in embedded() if findings(entry)]
SETTING = re.compile(r"`(\w+)=([^`]+)`")
TESTS = ROOT / "tests" / "methods"


def source(name: str) -> str:
    """Return the source of a test "module.test", without its module's other tests.

    Raises:
        KeyError: the module has no such test.
    """
    module, function = name.split(".")
    text = (TESTS / f"{module}.py").read_text(encoding="utf-8")
    tests = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    first = min([one.lineno for one in tests[function].decorator_list] + [tests[function].lineno])
    return "\n".join(text.splitlines()[first - 1 : tests[function].end_lineno])


def test_the_page_is_fresh() -> None:
    written = (ROOT / "docs" / "releases.md").read_text(encoding="utf-8")
    assert written == release_cards(), "a finding changed: python run.py cards --releases > docs/releases.md"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_finding_has_a_test_that_asserts_something_about_the_method(entry: Entry) -> None:
    for test in findings(entry):
        text = source(test)
        names = (entry.name, entry.target.__name__)
        assert any(name.lower() in text.lower() for name in names), f"{test} names no method"
        assert re.search(r"\bassert\b|\bassert_close\(|\bsame\(|\bpicked\(|pytest\.raises", text), (
            f"{test} asserts nothing"
        )


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_findings_are_sentences_and_name_settings_that_exist(entry: Entry) -> None:
    for text in findings(entry).values():
        assert text.endswith(".")
        assert text[0].isupper() or text[0] == "`"
        for field, value in SETTING.findall(text):
            MethodSpec(entry.name, ratio=0.5, settings={field: value}).pruner()


def test_a_method_is_linked_from_the_page_and_from_its_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cards", "--releases"]) == 0
    page = capsys.readouterr().out
    assert page == release_cards()
    for entry in ENTRIES:
        assert f"\n## {entry.name}\n" in page
        for test, text in findings(entry).items():
            module, function = test.split(".")
            assert f"* {text} Shown by [`{function}`](../tests/methods/{module}.py).\n" in page
    assert main(["list", "methods", "holov", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["releases"] == METHODS.entry("holov").metadata["releases"]
