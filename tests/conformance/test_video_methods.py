"""Methods on prompts of videos: those for video, and one inside the language model; what they refuse by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _pytest.mark import ParameterSet

from tests.conformance.test_matrix import JUDGING, TILED, VIDEO, check, sampled
from tests.helpers.clips import OnVideos
from tests.helpers.video_models import FAMILIES
from uniprune.conformance import MethodUnderTest, Models, examine, title
from uniprune.evaluation.method_spec import MethodSpec

METHODS = (
    *(("evs", ""), ("vidcom2", ""), ("vidcom2", "release"), ("fastvid", ""), ("fastvid", "release")),
    *(("flashvid", ""), ("flashvid", "release"), ("priortr", "qwen")),
)
"""Names, with a value of `counts` or `rows`."""
KEPT = [one for one in JUDGING if title(one) != "one token"]
"""Checks of videos, whose frames are larger: LLaVA-NeXT-Video pools four patches to a token."""
FRAMES_APART = ("glm4v",)
"""Families whose frames are grids of their own."""

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def models() -> Models:
    """Shared: methods that change them fail."""
    return Models()


def cases() -> Iterator[ParameterSet]:
    """Yield every method on every family with videos; `make test` takes one."""
    for family in FAMILIES:
        for name, value in METHODS:
            if name not in VIDEO or family not in FRAMES_APART:
                taken = (family, name, value) == ("qwen2_5_vl", "vidcom2", "")
                yield sampled(name, value, family, taken=taken)


def under_test(name: str, value: str, family: str, models: Models) -> OnVideos:
    field = "counts" if name in VIDEO else "rows"
    return OnVideos(MethodSpec(name, settings={field: value} if value else {}).pruner(), family, models)


@pytest.mark.parametrize(("name", "value", "family"), cases())
def test_method_keeps_all_rules_on_videos(name: str, value: str, family: str, models: Models) -> None:
    check(under_test(name, value, family, models), KEPT)


@pytest.mark.parametrize("name", sorted(VIDEO))
def test_grids_that_may_not_be_frames_are_refused(name: str, models: Models) -> None:
    """Tiles of an image, and frames that a family encodes one by one."""
    tiled = MethodUnderTest(MethodSpec(name).pruner(), TILED[0], models)
    for method in (tiled, *(under_test(name, "", family, models) for family in FRAMES_APART)):
        findings = list(examine(method, JUDGING[:1]))
        assert [one.result.outcome for one in findings] == ["n.a."]
        assert "refuses this family: the method compares the frames of one video" in findings[0].result.detail
