"""Annotations of fields decide which values they take, without any library of validation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest

from tests.helpers.paths import ROOT
from uniprune.errors import UserError
from uniprune.evaluation.method_spec import parse_field
from uniprune.pruning.base import PreLLM
from uniprune.pruning.fields import Cosine, Count, NonNegative, Positive, Share, allows, field_types, validate

if TYPE_CHECKING:
    from nowhere import Imagined  # type: ignore[import-not-found]

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Share, [0, 0.5, 1, True is False or 0.0], [-0.1, 1.1, NAN, INF, "0.5", None, True]),
        (Cosine, [-1, 1], [-1.01, NAN]),
        (Positive, [1e-9, 3], [0, -1, INF, NAN]),
        (Count, [1, 10**400], [0, 1.0, True, "1"]),
        (NonNegative, [0], [-1]),
        (float, [1, 0.5, 10**400], [True, "1", 1j, INF, NAN]),
        (int, [-3], [1.0, False]),
        (bool, [True], [1, None]),
        (str, ["a"], [b"a"]),
        (Literal["a", 1], ["a", 1], ["b", True, 1.0]),
        (Share | None, [None, 0.5], [2, "a"]),
        (tuple[int, ...], [(), (1, 2)], [[1], (1.0,), (1, None), 1]),
        (tuple[Share, str], [(0.5, "a")], [(0.5,), (2, "a"), ("a", 0.5)]),
        (tuple[()], [()], [(1,)]),
        (dict[str, int], [{}], [[]]),
        (Callable[[int], int], [abs], [1]),
        (type[int], [bool], [1]),
        (Any, [1, None], []),
    ],
)
def test_values_of_a_type(kind: Any, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not allows(kind, value)] == []
    assert [value for value in bad if allows(kind, value)] == []


@dataclass(frozen=True, kw_only=True)
class Many(PreLLM):
    """A method with fields of all kinds."""

    share: Share = 0.5
    step: Count = 8
    heat: Positive = 0.1
    heads: Literal["joint", "mean"] = "joint"
    limit: Share | None = None
    layers: tuple[int, ...] = ()
    table: dict[str, int] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"share": NAN}, r"share nan is outside \[0, 1\]"),
        ({"share": "0.5"}, r"share '0.5' must be a finite number in \[0, 1\]"),
        ({"step": 2.5}, "step 2.5 must be a whole number of at least 1"),
        ({"heat": 0}, "heat 0 must be a finite number above 0"),
        ({"heads": "max"}, "heads 'max' is unknown; expected one of joint, mean"),
        ({"limit": 2.0}, r"limit 2.0 must be a finite number in \[0, 1\] or None"),
        ({"layers": [1]}, r"layers \[1\] must be of type tuple\[int, \.\.\.\]"),
        ({"table": 3}, r"table 3 must be of type dict\[str, int\]"),
        ({"order": "random"}, "order 'random' is unknown; expected one of raster, release"),
    ],
)
def test_refused_values_are_named_with_what_was_expected(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        Many(**fields)


@dataclass(frozen=True, kw_only=True)
class Half(Many):
    """A method whose author imports a type for the type checker only, and bounds a number with foreign metadata."""

    unseen: Imagined = 0.5
    bounded: Annotated[float, "at most 3"] = 7.0
    share: Imagined = 9.0


def test_annotations_that_cannot_be_resolved_are_not_checked() -> None:
    assert {"unseen", "share"}.isdisjoint(field_types(Half))
    assert field_types(Half)["step"] == Count
    with pytest.raises(UserError, match="step 0 must be"):
        Half(unseen=object(), step=0)


def test_the_command_line_reads_them() -> None:
    assert parse_field(Many, "share", "1") == 1.0
    assert parse_field(Many, "limit", "null") is None
    assert parse_field(Half, "unseen", "[1, 2]") == [1, 2]
    with pytest.raises(UserError, match="expected"):
        parse_field(Many, "step", "many")


def test_validate_reads_every_field() -> None:
    @dataclass
    class Loose:
        step: Count = 0

    with pytest.raises(UserError, match="step 0"):
        validate(Loose())


@pytest.mark.slow
def test_engine_and_methods_need_no_library_of_validation() -> None:
    """A machine with torch and transformers only can prune."""
    code = (
        "import sys\n"
        "for name in ('pydantic', 'rich', 'pandas', 'vlmeval', 'matplotlib'): sys.modules[name] = None\n"
        "import uniprune.engine\n"
        "from uniprune.registry import METHODS\n"
        "assert len([METHODS.get(name)() for name in METHODS.names()]) > 20\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
