"""Every method on every family of the full tests, with both attention kernels, alone and in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from _pytest.mark import ParameterSet

from tests.helpers.tiny import FAMILIES
from uniprune.conformance import CHECKS, MethodUnderTest, Models, examine, title
from uniprune.conformance.suite import Check
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.registry import METHODS

pytestmark = pytest.mark.end_to_end

OURS = [name for name in METHODS.names() if METHODS.get(name).__module__.startswith("uniprune.methods.")]
VIDEO = {"evs", "vidcom2", "fastvid", "flashvid"}
"""Methods that compare the frames of one grid, and refuse views of several."""
TEXT_TOWER = {"trim"}
"""Methods that need the text tower of the vision tower, which no family has."""
TILED = ("llava_next", "llava_next-mistral", "llava_onevision", "llava_next_video", "smolvlm", "idefics3")
"""Families whose images are several grids."""
SEQUENCES = (
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_vl",
    "qwen3_vl_moe",
    "qwen3_5",
    "qwen3_5_moe",
    "glm4v",
    "glm4v_moe",
    "glm46v",
)
TILES = ("llava", "llava-siglip-qwen2", "internvl", "internvl-qwen3", "internvl-qwen3_moe", "gemma3")
TOWER = {"random-tower": (*SEQUENCES, *TILES), "pixelprune": SEQUENCES, "tome": ("llava", "llava-siglip-qwen2")}
"""Methods inside the tower -> families whose towers can drop patches as they do; others are refused by name."""
ONCE = {
    "cost",
    "bfloat16",
    "batch",
    "attention kernels",
    "text only",
    "one token",
    "model untouched",
    "process state",
    "seeds",
}
"""Checks that compare settings, or to which kernel and batch make no difference."""
AGAIN = [check for check in CHECKS if title(check) not in ONCE]
JUDGING = [check for check in CHECKS if title(check) != "cost"]
VARIANTS = [
    ("divprune", {"positions": "compact"}, "llava"),
    ("divprune", {"scope": "prompt"}, "internvl"),
    ("fastv", {"scope": "prompt"}, "qwen2_5_vl"),
    ("divprune+fastv", {}, "internvl"),
    ("visionzip+pyramiddrop", {"positions": "original"}, "qwen2_5_vl"),
    ("prumerge", {"adaptive": "true", "order": "release"}, "qwen2_5_vl"),
    ("prumerge+", {"adaptive": "true"}, "llava"),
    ("fopru", {"strategy": "row"}, "internvl"),
    ("visionzip", {"cls": "true", "order": "release"}, "llava"),
    ("mustdrop", {"similarity": "0.1"}, "llava"),
    ("dart", {"text_pivots": "0"}, "internvl"),
    ("sparsevlm", {"order": "release"}, "llava"),
    ("fopru", {"order": "release"}, "llava_next"),
    ("fitprune", {"budget": "paper"}, "llava"),
    ("gprune", {"scope": "grid"}, "llava_next"),
    ("visionzip", {"scope": "tile", "cls": "true"}, "llava_next"),
    ("cdpruner+fitprune", {"scope": "tile"}, "llava_next"),
    ("fopru", {"scope": "tile", "strategy": "row"}, "llava_next"),
    ("dart", {"order": "release"}, "qwen3_vl"),
    ("random-tower+fastv", {}, "qwen2_5_vl"),
    ("random-tower", {"block": "2"}, "internvl"),
    ("tome+fastv", {"inflection": "-1"}, "llava"),
    ("random-tower+divprune", {}, "internvl"),
    ("divprune", {"positions": "vllm"}, "qwen2_5_vl"),
]
"""Other ways of asking: several images as one, tiles apart, compositions, adaptive counts, merging, schedules."""
MORE = [
    ("trim", {"text": "llm"}, "llava"),
    ("trim", {"text": "llm", "adaptive": "true"}, "qwen2_5_vl"),
    ("prunesid", {"cls": "true", "scope": "tile", "order": "release"}, "llava_next"),
    ("hired", {"regions": "tiles"}, "llava_next"),
    ("hired", {"counts": "release"}, "internvl"),
    ("vscan", {"counts": "release"}, "llava"),
    ("tome+random-pre+fastv", {}, "llava"),
    ("pixelprune+cdpruner", {}, "qwen2_5_vl"),
    ("random-tower+divprune", {"positions": "vllm"}, "qwen3_vl"),
]
"""The same, in `make test-all` only."""


@pytest.fixture(scope="module")
def models() -> Models:
    """Shared: methods that change them fail."""
    return Models()


OTHER = [("sdpa", 3), ("eager", 1), ("eager", 3)]
"""Kernels and batches besides sdpa and one row."""


def sampled(*values: object, taken: bool) -> ParameterSet:
    """Return a case of `make test`, or one that only `make test-all` takes."""
    return pytest.param(*values, marks=() if taken else pytest.mark.exhaustive)


def full() -> Iterator[ParameterSet]:
    """Yield every method on every family; in `make test` on one of them, the next one for the next method."""
    for i, name in enumerate(OURS):
        for family in accepting(name):
            yield sampled(name, family, taken=family == in_turn(accepting(name), i))


def others() -> Iterator[ParameterSet]:
    """Yield every method on every family with every other kernel and batch; in `make test` every third method on one.

    `test_covered.py` has all methods with other kernels and batches.
    """
    for i, name in enumerate(OURS):
        for family in accepting(name):
            for other in OTHER:
                taken = family == in_turn(accepting(name), i) and other == in_turn(OTHER, i // 3) and i % 3 == 0
                yield sampled(name, family, *other, taken=taken)


def in_turn(values: Sequence[Any], i: int) -> Any:
    """Return value number i, counted round and round."""
    return values[i % len(values)]


def accepting(name: str) -> list[str]:
    """Return the families of the full tests whose images a method takes."""
    return [family for family in FAMILIES if accepts(name, family)]


def accepts(name: str, family: str) -> bool:
    """Check whether a method takes images of a family, as pixels; other files of this folder have the others."""
    if METHODS.get(name).kind == "input" or name in TEXT_TOWER or (name in VIDEO and family in TILED):
        return False
    return family in TOWER.get(name, (family,))


def check(method: MethodUnderTest, checks: Sequence[Check]) -> None:
    findings = list(examine(method, checks))
    failed = [f"{one.check}: {one.result.detail}" for one in findings if one.result.outcome == "FAIL"]
    assert not failed
    assert any(one.result.outcome == "pass" for one in findings), "nothing was checked"


@pytest.mark.parametrize(("name", "family"), full())
def test_method_keeps_all_rules(name: str, family: str, models: Models) -> None:
    check(MethodUnderTest(METHODS.get(name)(), family, models), JUDGING)


@pytest.mark.parametrize(("name", "family", "attention", "batch"), others())
def test_method_keeps_the_rules_of(name: str, family: str, attention: str, batch: int, models: Models) -> None:
    check(MethodUnderTest(METHODS.get(name)(), family, models, attention=attention, batch=batch), AGAIN)


def test_the_sample_has_every_method_family_and_setting() -> None:
    methods, families = zip(*(case.values for case in full() if not case.marks), strict=True)
    assert {*methods} == {name for name in OURS if accepting(name)}
    assert {*families} == {*FAMILIES}
    _, families, *settings = zip(*(case.values for case in others() if not case.marks), strict=True)
    assert {*families} == {*FAMILIES}
    assert {*zip(*settings, strict=True)} == {*OTHER}


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("name", "settings", "family"), [*VARIANTS, *(sampled(*one, taken=False) for one in MORE)], ids=str
)
def test_other_settings_keep_all_rules(name: str, settings: dict[str, str], family: str, models: Models) -> None:
    check(MethodUnderTest(MethodSpec(name, settings=settings).pruner(), family, models), JUDGING)


def test_a_refused_family_is_reported() -> None:
    pruner = MethodSpec("visionzip", settings={"cls": "true"}).pruner()
    findings = list(examine(MethodUnderTest(pruner, "internvl", Models()), JUDGING))
    assert {one.result.outcome for one in findings} == {"n.a."}
    assert "refuses this family: the projector" in findings[0].result.detail
    for name in TEXT_TOWER:
        found = list(examine(MethodUnderTest(MethodSpec(name).pruner(), "llava", Models()), JUDGING[:1]))
        assert [one.result.outcome for one in found] == ["n.a."]
        assert "refuses this family: checkpoints of Llava carry no text tower" in found[0].result.detail


def test_checks_of_tokens_do_not_apply_to_input_stages() -> None:
    findings = list(examine(MethodUnderTest(METHODS.get("resize")(), "llava", Models()), JUDGING))
    assert {one.result.outcome for one in findings} == {"n.a."}
    assert "Resize changes images before they are processed" in findings[0].result.detail
