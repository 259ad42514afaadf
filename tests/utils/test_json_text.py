"""JSON text and stored files: no number that is not finite is written or read, no key is given twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from uniprune.errors import UserError
from uniprune.utils.files import JsonLines
from uniprune.utils.json_text import from_json, not_finite, to_json

NAN, INF = float("nan"), float("inf")


def test_plain_values_come_back() -> None:
    value = {"a": [1, 2.5, None, True, "é", {"b": []}], "c": -1e308}
    assert from_json(to_json(value)) == value
    assert from_json(to_json(value, indent=1, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("value", "place"),
    [({"a": {"b": [1.0, NAN]}}, "a.b.1 is nan"), ([INF], "0 is inf"), ({"a": (1, -INF)}, "a.1 is -inf"),
     (NAN, "the value is nan")],
)  # fmt: skip
def test_the_field_of_a_number_that_is_not_finite_is_named(value: Any, place: str) -> None:
    with pytest.raises(ValueError, match=f"^{place}; only finite numbers can be stored"):
        to_json(value)
    with pytest.raises(ValueError, match=f"^{place}; only finite numbers are allowed"):
        from_json(json.dumps(value))


@pytest.mark.parametrize(
    ("text", "reason"),
    [('{"a": 1e400}', "a is inf"), ("1E+0309", "the value is inf"), ("[-1.5e999 ]", "0 is -inf"),
     ('{"a": [%s.0]}' % ("9" * 309), "a.0 is inf"), ("[%se99]" % ("9" * 211), "0 is inf"),
     ('{"a": -Infinity}', "a is -inf"), ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' is given twice"),
     ("[" * 200_000, "nested too deeply"), ("nan", "Expecting value")],
)  # fmt: skip
def test_other_texts_that_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        from_json(text)


def test_every_place_is_found() -> None:
    assert [place for place, _ in not_finite({"a": [NAN, {"b": INF}], "c": "nan"})] == ["a.0", "a.1.b"]


def test_a_file_of_lines_neither_takes_nor_returns_such_a_number(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    lines: JsonLines[Any] = JsonLines(path, lambda line: line, "a stored line", "delete it and run again")
    lines.append([{"n": 1.0}])
    before = path.read_bytes()
    for write in (lines.append, lines.rewrite):
        with pytest.raises(UserError, match=r"x.jsonl is left as it was: in a new line, b.0 is inf"):
            write([{"n": 2.0}, {"b": [INF]}])
    assert path.read_bytes() == before
    path.write_bytes(before + b'{"n": NaN}\n')
    with pytest.raises(UserError, match=r"x.jsonl line 2 is not a stored line \(n is nan; .*\); delete it"):
        lines.read()
