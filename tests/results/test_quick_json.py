"""Quick reading of records: what the slow reader returns and refuses, and nothing else."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from uniprune.results import quick_json as module
from uniprune.results.quick_json import quick_json
from uniprune.utils.json_text import from_json

TEXTS = (
    *('{"a": 1, "a": 1}', '{"a": {"b": 1, "b": 2}}', '[{"a":1},{"a" :1 , "a"\t:2}]', '{"a"\n:1,"a"\r:2}'),
    *('{"a": NaN}', "[Infinity]", '{"x": {"y": -Infinity}}', "[1e400]", '{"a": 1E+0309}', "[-1.5e999 ]"),
    *("[%s.0]" % ("9" * 309), "[%se99]" % ("9" * 211), "[%s]" % ("9" * 250), "[1e30]", "[1e-400]", "[12e+2]"),
    *("", "nan", "{", '{"a": }', "[1,]", "01", '"\x01"', "[" * 500 + "]" * 500, '"\\ud800"', '{"a": 1} 2'),
    *('{"key: of": "a\\": b : c", "d": "e000"}', '{"": {"": {}}, "e": [[], {}]}', "-0", "-0.0", "1.0", "true"),
)


def outcome(read: Any, content: bytes) -> tuple[str, str]:
    """Value with its types, or the message of the refusal."""
    try:
        return "value", repr(read(content))
    except ValueError as error:
        return "refused", str(error)


@pytest.mark.parametrize("text", TEXTS)
def test_odd_texts_have_the_outcome_of_the_slow_reader(text: str) -> None:
    for content in (text.encode(), text.encode("utf-8-sig"), text.encode("utf-16")):
        assert outcome(quick_json, content) == outcome(from_json, content)
    assert outcome(quick_json, b'{"a": "\xff"}') == outcome(from_json, b'{"a": "\xff"}')


def made_up(rng: random.Random, depth: int) -> str:
    """JSON text in which keys may be equal, and numbers of any size."""
    kind = rng.randrange(9 if depth else 6)
    if kind < 6:
        number = f"{rng.uniform(-9, 9)!r}e{rng.choice(['', '+', '-'])}{rng.choice([1, 20, 305, 310])}"
        return [str(rng.randrange(-(10**20), 10**20)), repr(rng.random()), number, '"a: b"', "null", '":"'][kind]
    inner = [made_up(rng, depth - 1) for _ in range(rng.randrange(4))]
    space = rng.choice(["", " ", "\n"])
    if kind == 6:
        return f"[{','.join(inner)}]"
    return "{" + ",".join(f'"{rng.choice("abcdefgh")}"{space}:{one}' for one in inner) + "}"


def test_random_texts_have_the_outcome_of_the_slow_reader() -> None:
    rng, found = random.Random(0), set()
    for _ in range(3000):
        content = made_up(rng, 4).encode()
        expected = outcome(from_json, content)
        assert outcome(quick_json, content) == expected
        found.add(expected[0])
    assert found == {"value", "refused"}


def test_an_ordinary_record_does_not_need_the_slow_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    items = {str(i): i / 7 for i in range(50)}
    value = {"format": 3, "score": {"value": 1e-05, "per_item": items}, "data": "0f9e123e4567", "a:b": ["c: d"]}
    monkeypatch.setattr(module, "from_json", lambda _: pytest.fail("read slowly"))
    for layout in ({"indent": 1, "ensure_ascii": False}, {}):
        assert quick_json(json.dumps(value, **layout).encode()) == value
