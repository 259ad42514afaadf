"""YAML files: plain values without guesses; what is ambiguous, doubled or hostile is refused by file and line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from tests.helpers.paths import ROOT
from uniprune.errors import UserError
from uniprune.utils.yaml_file import parse_yaml, read_model, read_yaml

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("a: ~", {"a": None}), ("a:", {"a": None}), ("a: true", {"a": True}), ("a: yes", {"a": "yes"}),
        ("a: off", {"a": "off"}), ("a: No", {"a": "No"}), ("a: 12", {"a": 12}), ("a: -3", {"a": -3}),
        ("a: 010", {"a": "010"}), ("a: 0x1f", {"a": "0x1f"}), ("a: 1_000", {"a": "1_000"}), ("a: 1:30", {"a": "1:30"}),
        ("a: 1.5", {"a": 1.5}), ("a: 1e-4", {"a": 1e-4}), ("a: 1e3", {"a": 1000.0}), ("a: '1'", {"a": "1"}),
        ("a: 2001-01-01", {"a": "2001-01-01"}), ("a: 2001-99-99", {"a": "2001-99-99"}), ("a: \u0661", {"a": "\u0661"}),
        ("- [1, x]", [[1, "x"]]),
        ("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}", {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}}),
    ],
)  # fmt: skip
def test_values_mean_what_they_say(text: str, value: Any) -> None:
    parsed = parse_yaml(text)
    assert parsed == value
    assert repr(parsed) == repr(value), "of the same types"


def test_a_value_that_is_changed_is_not_read_again() -> None:
    parse_yaml("a: [1]")["a"].append(2)
    assert parse_yaml("a: [1]") == {"a": [1]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: key 'a' is given twice, first in line 1"),
        ("b:\n  - {a: 1, 'a': 1}", "line 2: key 'a' is given twice"),
        ("1: 2", "line 1: key '1' is no text"),
        ("true: 2", "line 1: key 'true' is no text"),
        ("? [a]\n: 1", "line 1: key of several values is no text"),
        ("a: .nan", "line 1: .nan is no finite number"),
        ("a: -.inf", "-.inf is no finite number"),
        ("a: 1e400", "1e400 is no finite number"),
        ("a: " + "9" * 5000, "a whole number of 5000 digits"),
        ("a: !!int 3", "line 1: tag 'tag:yaml.org,2002:int'"),
        ("!!python/name:os.system x", "tag "),
        ("&a [*a]", "a value that contains itself"),
        ("[" * 3000, "nested too deeply"),
        ('a: "\\ud800"', r"a text with the character '\\ud800'"),
        ('a: "\\x1b[31m"', r"a text with the character '\\x1b'"),
        ("a: 1\n---\nb: 2", "but found another document"),
        ("*nope", "undefined alias"),
        ("a: [1", "line 1: "),
        ("\x00", "unacceptable character"),
    ],
)
def test_what_is_refused_has_a_line_and_a_reason(text: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=f"x.yaml cannot be read as YAML: .*{reason}"):
        read_yaml(file)


def test_repetitions_do_not_grow_beyond_measure() -> None:
    names = "abcdefgh"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in pairwise(names)]
    with pytest.raises(ValueError, match="line 1: more than 50000 values"):
        parse_yaml("\n".join(lines))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.stem)
def test_files_of_the_repository_are_read_as_by_other_readers(file: Path) -> None:
    assert read_yaml(file) == yaml.safe_load(file.read_text(encoding="utf-8"))


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ratio: float = 1.0
    seed: int = 0
    name: str = ""
    sure: bool = False
    inner: list[Form] = []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ratio: true", r"ratio: Input should be a valid number \(got True\)"),
        ("ratio: yes", r"ratio: Input should be a valid number \(got 'yes'\)"),
        ("ratio: '0.5'", r"ratio: Input should be a valid number \(got '0.5'\)"),
        ("seed: 1.5", "seed: Input should be a valid integer"),
        ("seed: 1.0", "seed: Input should be a valid integer"),
        ("seed: true", "seed: Input should be a valid integer"),
        ("seed: 010", r"seed: Input should be a valid integer \(got '010'\)"),
        ("name: 1.0", "name: Input should be a valid string"),
        ("sure: yes", "sure: Input should be a valid boolean"),
        ("sure: 1", "sure: Input should be a valid boolean"),
        ("inner: [{seed: 1}, {seed: '1'}]", "inner.1.seed: Input should be a valid integer"),
        ("other: 1", "other: Extra inputs are not permitted"),
        ("- 1", "the file: "),
    ],
)
def test_types_are_strict(text: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=f"x.yaml: {reason}.*; see there"):
        read_model(file, Form, "see there")


def test_a_whole_number_is_a_ratio_too(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("{ratio: 1, seed: 3, name: '1.0', inner: [{sure: true}]}")
    assert read_model(tmp_path / "x.yaml", Form) == Form(ratio=1.0, seed=3, name="1.0", inner=[Form(sure=True)])
