"""`python run.py check`: output and exit codes."""

from __future__ import annotations

import argparse
import json

import pytest

from tests.helpers.paths import TESTS
from uniprune.cli.check import arguments, families_of
from uniprune.cli.main import main
from uniprune.conformance import CHECKS, rule, title
from uniprune.registry import MODELS

pytestmark = pytest.mark.end_to_end

FAULTY = TESTS / "conformance" / "faulty"


def test_a_fault_is_reported_and_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(FAULTY / "duplicates.py"), "--family", "llava", "qwen2*"]) == 1
    shown = capsys.readouterr().out
    printed = [line for line in shown.splitlines() if line.startswith("FAIL")]
    assert all(line.startswith("FAIL      unique (") and "repeat a token" in line for line in printed)
    assert printed
    assert f"{1 + len(MODELS.names('qwen2*'))} of " in shown.splitlines()[-1]


def test_an_unknown_family_suggests_a_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "none", "--family", "lava"]) == 2
    assert "unknown model family 'lava'; did you mean 'llava'" in capsys.readouterr().err


@pytest.mark.parametrize("families", [pytest.param((), marks=pytest.mark.exhaustive), ("gemma3", "llava_next")])
def test_json_holds_every_check_of_every_family(families: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "none", "--json", *["--family"] * bool(families), *families]) == 0
    rows = json.loads(capsys.readouterr().out)
    wanted = families or MODELS.names()
    assert {(row["family"], row["check"]) for row in rows} == {(name, title(c)) for name in wanted for c in CHECKS}
    assert {row["outcome"] for row in rows} <= {"pass", "n.a."}
    assert all(row["method"] == "none" and row["rule"] for row in rows)


def test_families_are_all_unless_some_are_given() -> None:
    parser = argparse.ArgumentParser()
    arguments(parser)
    assert families_of(parser.parse_args(["none"]).family) == MODELS.names()
    assert families_of(parser.parse_args(["none", "--family", "llava", "qwen*"]).family) == [
        "llava",
        *MODELS.names("qwen*"),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["divprun"], "unknown method 'divprun'; did you mean 'divprune'"),
        (["nowhere.py"], "plugin 'nowhere.py' is not a file"),
        ([__file__], "registers no method"),
        (["fastv", "--set", "layer=7"], "layer 7 is outside the model's decoder layers 0..4"),
        (["fastv", "--set", "layr=1"], "did you mean 'layer'"),
        (["mustdrop+random-intra", "--set", "random-intra.layer=4"], "they must increase"),
    ],
)
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *words]) == 2
    assert message in capsys.readouterr().err


def test_every_check_says_what_it_proves() -> None:
    assert len({title(check) for check in CHECKS}) == len(CHECKS)
    assert all(20 < len(rule(check)) < 110 for check in CHECKS), [rule(c) for c in CHECKS if len(rule(c)) > 109]
