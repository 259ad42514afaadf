"""Published names are the methods that they mean: one specification, one record, one identity."""

from __future__ import annotations

import json

import pytest

from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.evaluation.config import MethodConfig
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.registry import METHODS, Registry
from uniprune.reports.method_cards import cards

SPELLED = {
    "fastervlm": MethodSpec("vispruner", 0.25, settings={"important": "1"}),
    "duet-vlm": MethodSpec("visionzip+pyramiddrop", 0.25),
    "divprune+vtw": MethodSpec("divprune+vtw", 0.25),
    "divprune+random-intra": MethodSpec("divprune+random-intra", 0.25, seed=3),
}
ATTENDS = [True] * 6


def test_every_published_name_is_spelled_out_here() -> None:
    assert set(METHODS.published()) == set(SPELLED)
    assert not set(METHODS.published()) & set(METHODS.names())


@pytest.mark.parametrize("name", SPELLED)
def test_a_published_name_is_what_it_means(name: str) -> None:
    spelled = SPELLED[name].normalised()
    named = MethodSpec(name, 0.25, seed=SPELLED[name].seed).normalised()
    assert named.pruner() == spelled.pruner()
    assert named.record(named.pruner(), ATTENDS) == spelled.record(spelled.pruner(), ATTENDS)
    assert named.label == spelled.label
    assert named.known_as == spelled.known_as == (() if name == named.name else (name,))
    assert MethodConfig(name=name).choice(0.25, SPELLED[name].seed).record(named.pruner(), ATTENDS).name == named.name


@pytest.mark.parametrize(
    "spec",
    [
        MethodSpec("vispruner", 0.25),
        MethodSpec("vispruner", 0.25, settings={"important": "0.75"}),
        MethodSpec("vispruner", 0.25, settings={"important": "1", "step": "4"}),
        MethodSpec("visionzip+pyramiddrop", 0.25, settings={"contextual": "0.1"}),
        MethodSpec("none"),
    ],
    ids=str,
)
def test_other_fields_are_not_the_published_method(spec: MethodSpec) -> None:
    assert spec.known_as == ()


def test_published_names_compose_and_take_other_fields() -> None:
    spec = MethodSpec("fastervlm+fastv", 0.25, settings={"fastervlm.step": "4"}).normalised()
    assert spec.name == "vispruner+fastv"
    assert spec.fields()["vispruner"] == {"step": 4, "important": 1.0}
    assert spec.has("fastervlm.step")


@pytest.mark.parametrize("key", ["important", "fastervlm.important", "vispruner.important"])
def test_what_a_name_means_is_not_set_otherwise(key: str) -> None:
    with pytest.raises(UserError, match=r"vispruner.important=1.0 is what the name 'fastervlm' means"):
        MethodSpec("fastervlm", 0.25, settings={key: "0.5"}).normalised()


def test_names_of_one_kind_are_different() -> None:
    registry = Registry("thing", "uniprune.methods")
    registry.register("some")(object)
    for name in ("some", "SOME"):
        with pytest.raises(UserError, match=r"is already registered|in case only"):
            registry.publish(name, "other", "")
    registry.publish("other", "some", "")
    registry.publish("other", "some", "")
    with pytest.raises(UserError, match="is a published name"):
        registry.register("other")
    with pytest.raises(UserError, match="is already registered"):
        registry.publish("other", "else", "")


def test_where_a_class_is_needed_the_meaning_is_named() -> None:
    with pytest.raises(UserError, match=r"'fastervlm' is a published name of vispruner with important=1.0"):
        METHODS.get("fastervlm")


def test_they_are_listed_and_have_cards(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods", "fastervlm", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["kind"], row["fields"], row["paper"]) == ("published", {"important": 1.0}, "arXiv 2412.01818")
    page = cards()
    assert "* The same as: `--method vispruner --set important=1.0`, under which it is stored and shown" in page
    for name, one in METHODS.published().items():
        assert f"\n## {name}\n" in page
        assert all(line.startswith(("Paper", "Release")) for line in one.metadata["deviations"])
