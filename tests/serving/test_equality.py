"""Served answers and kept tokens are those of UniPrune's own engine: every servable method on every model."""

from __future__ import annotations

import pytest

from tests.helpers.serving import RATIO, Asked, InVllm, method, questions
from uniprune.errors import UnsupportedError
from uniprune.pruning.serving import servable
from uniprune.registry import METHODS

pytest.importorskip("vllm", reason="make serving")
pytestmark = [pytest.mark.serving, pytest.mark.timeout(900)]

FAMILIES = ("llava", "internvl", "qwen2.5-vl")
SERVABLE = [name for name in METHODS.names() if servable(method(name)).yes and name != "random-pre"]
"""Without the random choice: no row id reaches a model in vLLM, so its draw is seeded by the image."""
UNBUILT = {("llava", "prumerge"), ("llava", "prumerge+")}
"""They read the last block of the tower, which vLLM does not build for LLaVA."""
OF_ONE_GRID = {"fastvid", "flashvid", "vidcom2"}
"""Methods for videos, which take an image for one frame, but not several tiles."""
CHAOTIC = {"vispruner"}
"""One part in a million of noise on attention changes its picks for some images; here one of eight may differ."""
FIELDS = {"trim": {"text": "llm"}}
"""The checkpoints have no text tower to compare with."""


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    """Return questions about square images, a wide one and a tall one."""
    return [*questions(6), *questions(1, 5, (192, 96)), *questions(1, 6, (96, 192))]


@pytest.mark.parametrize("name", SERVABLE)
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_and_kept_tokens_are_equal(family: str, name: str, engine, reference, asked: list[Asked]) -> None:
    served: InVllm = engine(family)
    fields = {"positions": "original", **FIELDS.get(name, {})}
    given, pruner = {"method": name, **({} if name == "none" else {"ratio": RATIO}), **fields}, method(name, **fields)
    if (family, name) in UNBUILT:
        with pytest.raises(UnsupportedError, match=r"vision_layer=-1 is block 3 .* vLLM builds blocks 0\.\.2 only"):
            served.use(given)
        return
    asked = asked[:6] if family == "internvl" and name in OF_ONE_GRID else asked
    served.use(given)
    found = served.answer(asked, pruner.needs_text)
    expected = reference(family).answer(pruner, asked)
    if name != "none":
        differ = [number for number, one in enumerate(found) if one.kept != expected[number].kept]
        assert len(differ) <= (name in CHAOTIC)
        expected = [found[number] if number in differ else one for number, one in enumerate(expected)]
    assert [(one.text, one.prompt) for one in found] == [(one.text, one.prompt) for one in expected]
    if not pruner.needs_text:
        assert [one.text for one in served.together(asked)] == [one.text for one in expected]


@pytest.mark.parametrize(
    ("family", "positions"), [("qwen2.5-vl", "vllm"), ("llava", "compact"), ("internvl", "compact")]
)
def test_other_positions_give_the_answers_of_the_same_row(
    family: str, positions: str, engine, reference, asked: list[Asked]
) -> None:
    """The kept tokens are those of original positions, some answers are not."""
    served: InVllm = engine(family, "compact" if positions == "compact" else "original")
    wide = [*asked, *questions(4, 8, (96, 192))]
    found, usual = list[str](), list[str]()
    for name in ("divprune", "visionzip"):
        pruner = method(name, positions=positions)
        served.use({"method": name, "ratio": RATIO, "positions": positions})
        here, there = served.answer(wide), reference(family).answer(pruner, wide)
        assert [(one.text, one.kept) for one in here] == [(one.text, one.kept) for one in there]
        found += [one.text for one in here]
        usual += [one.text for one in reference(family).answer(method(name), wide)]
    assert found != usual
