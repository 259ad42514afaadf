"""Methods as objects: what construction refuses, how compositions behave, how command-line words become fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

from uniprune.errors import UserError
from uniprune.evaluation.method_spec import MethodSpec, parse_field, parse_settings
from uniprune.pruning.base import Compose, IntraLLM, PreLLM, Pruner


@dataclass(frozen=True, kw_only=True)
class Attentive(IntraLLM):
    """Needs LLM attention, and has a field of every common kind."""

    llm_attention: ClassVar[bool] = True
    weight: float = 0.5
    heads: int | None = None
    layers: tuple[int, ...] = ()
    on: bool = False


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ratio": 0.0}, r"outside \(0, 1\]"),
        ({"ratio": float("nan")}, "ratio nan must be a finite number"),
        ({"ratio": "half"}, "ratio 'half' must be a finite number"),
        ({"layer": -1}, "layer -1 must be a whole number of at least 0"),
        ({"layer": 1.5}, "layer 1.5 must be a whole number of at least 0"),
        ({"seed": None}, "seed None must be a whole number"),
        ({"layer": 0}, "LLM attention, which does not exist before layer 0"),
        ({"positions": "shuffled"}, "expected one of original, compact"),
        ({"scope": "world"}, "expected one of image, prompt"),
        ({"order": "random"}, "order 'random' is unknown; expected one of raster, release"),
    ],
)
def test_construction_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Attentive(**fields)  # type: ignore[arg-type]


def test_pre_llm_methods_have_no_layer() -> None:
    with pytest.raises(UserError, match="layer must be 0, not 2"):
        PreLLM(layer=2)


def test_layer_outside_the_decoder_names_the_range() -> None:
    with pytest.raises(UserError, match=r"layer 6 is outside the model's decoder layers 0\.\.5"):
        IntraLLM(layer=6).schedule(6)


def test_select_must_be_written() -> None:
    with pytest.raises(NotImplementedError, match="PreLLM must implement select"):
        PreLLM().select(None, 1)  # type: ignore[arg-type]


def test_composition_flattens_orders_and_multiplies() -> None:
    chain = PreLLM(ratio=0.5) >> IntraLLM(ratio=0.5, layer=2) >> IntraLLM(ratio=0.5, layer=4)
    assert isinstance(chain, Compose)
    assert [stage.layer for stage in chain.schedule(6)] == [0, 2, 4]
    assert chain.ratio == 0.125
    assert [part.ratio for part in chain.with_ratio(0.001).parts] == pytest.approx([0.1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((PreLLM(),), "at least two"),
        ((IntraLLM(layer=3), IntraLLM(layer=2)), "increasing layers"),
        ((PreLLM(), PreLLM()), "increasing layers"),
        ((PreLLM(seed=1), IntraLLM(seed=2)), "agree on seed"),
        ((PreLLM(positions="compact"), IntraLLM()), "agree on positions"),
    ],
)
def test_compositions_that_mean_nothing_are_refused(parts: tuple[Pruner, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Compose(*parts)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("weight", "0.25", 0.25), ("weight", "1", 1.0), ("heads", "3", 3), ("heads", "null", None),
        ("layers", "[1, 2]", (1, 2)), ("on", "true", True), ("positions", "compact", "compact"),
    ],
)  # fmt: skip
def test_fields_are_read_by_their_annotation(name: str, text: str, value: object) -> None:
    assert parse_field(Attentive, name, text) == value


@pytest.mark.parametrize(
    ("name", "text"), [("weight", "heavy"), ("heads", "1.5"), ("on", "maybe"), ("positions", "x"), ("layers", "[a]")]
)
def test_values_of_another_type_are_refused_with_the_expected_one(name: str, text: str) -> None:
    with pytest.raises(UserError, match=rf"--set {name}=.*expected"):
        parse_field(Attentive, name, text)


def test_settings_need_an_equals_sign() -> None:
    assert parse_settings(["a=b=c"]) == {"a": "b=c"}
    with pytest.raises(UserError, match="field=value"):
        parse_settings(["positions"])


def test_composition_by_name_gives_layer_and_fields_to_the_parts_they_concern() -> None:
    choice = MethodSpec("divprune+fastv", 0.25, layer=3, seed=7, settings={"scope": "prompt"})
    first, second = choice.pruner().parts  # type: ignore[attr-defined]
    assert (first.layer, second.layer) == (0, 3)
    assert (first.scope, second.scope) == ("prompt", "prompt")
    assert (first.seed, second.ratio) == (7, 0.5)
    named = MethodSpec("divprune+fastv", 0.25, layer=3, settings={"fastv.layer": "4"})
    assert named.pruner().parts[1].layer == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"name": "divprune+divprune"}, "twice"),
        ({"name": "divprune", "settings": {"position": "compact"}}, "did you mean 'positions'"),
        ({"name": "divprune", "settings": {"ratio": "0.5"}}, "unknown field of method 'divprune': 'ratio'"),
        ({"name": "divprune+fastv", "settings": {"fast.layer": "2"}}, "did you mean 'fastv'"),
    ],
)
def test_words_that_mean_nothing_are_refused(words: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MethodSpec(**words).pruner()  # type: ignore[arg-type]


def test_record_tells_passed_from_resolved_and_follows_the_source() -> None:
    choice = MethodSpec("fastv", 0.5, settings={"positions": "original"})
    record = choice.record(choice.pruner(), [True] * 6)
    assert record.passed == {"fastv.positions": "original"}
    assert record.resolved[0]["layer"] == 2
    assert record.stages == [(2, 0.5)]
    other = MethodSpec("divprune", 0.5)
    assert other.record(other.pruner(), [True] * 6).code != record.code
