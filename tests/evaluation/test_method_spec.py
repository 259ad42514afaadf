"""Method specifications: normalised once, resolved once, pickled without classes."""

from __future__ import annotations

import pickle

import pytest

from uniprune.errors import UserError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.registry import METHODS, Registry
from uniprune.results.spans import PARTS, SPANS


@pytest.mark.parametrize(
    ("given", "normalised"),
    [
        (MethodSpec("none", 0.5, seed=3), MethodSpec("none")),
        (MethodSpec("divprune", 0.5, seed=3), MethodSpec("divprune", 0.5)),
        (MethodSpec("random-pre", 0.5, seed=3), MethodSpec("random-pre", 0.5, seed=3)),
        (MethodSpec("divprune+random-intra", 0.5, 3, 7), MethodSpec("divprune+random-intra", 0.5, 3, 7)),
    ],
    ids=lambda spec: spec.name,
)
def test_equal_runs_have_one_specification(given: MethodSpec, normalised: MethodSpec) -> None:
    assert given.normalised() == normalised
    assert normalised.normalised() is normalised
    assert given.normalised().pruner() == normalised.pruner()


@pytest.mark.parametrize("name", ["none", "divprune"])
def test_a_ratio_outside_its_range_is_refused_even_where_it_means_nothing(name: str) -> None:
    with pytest.raises(UserError, match=r"keep ratio 1.5 is outside \(0, 1\]"):
        MethodSpec(name, 1.5).normalised()


def test_labels_hold_what_tells_runs_apart() -> None:
    specs = [MethodSpec("none"), MethodSpec("divprune", 0.25, seed=1), MethodSpec("random-pre", 0.25, seed=1)]
    assert [spec.label for spec in specs] == ["none", "divprune 0.25", "random-pre 0.25 seed 1"]


def test_names_are_looked_up_once_and_not_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    get = Registry.get
    monkeypatch.setattr(Registry, "get", lambda registry, name: looked_up.append(name) or get(registry, name))
    spec = MethodSpec("divprune+fastv", 0.25)
    assert spec.pruner() is spec.pruner()
    assert spec.record(spec.pruner(), [True] * 6).name == "divprune+fastv"
    assert looked_up == ["divprune", "fastv"]
    copy = pickle.loads(pickle.dumps(spec))
    assert copy == spec
    assert set(vars(copy)) == {"name", "ratio", "layer", "seed", "settings"}
    assert copy.pruner() == spec.pruner()
    assert METHODS.get("fastv") is copy.classes["fastv"]


def test_span_names_are_those_of_timer_and_record() -> None:
    from dataclasses import fields

    from uniprune.engine.timer import Spans
    from uniprune.results.measurements import Timing

    assert [field.name for field in fields(Spans)][: len(SPANS)] == [*SPANS]
    assert set(SPANS) <= Timing.model_fields.keys()
    assert (*PARTS, "total") == SPANS
