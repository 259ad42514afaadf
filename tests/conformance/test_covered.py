"""Every method on every family outside `test_matrix.py`, once: kernel and batch differ from method to method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from _pytest.mark import ParameterSet

from tests.conformance.test_matrix import AGAIN, OURS, accepts, check, sampled
from tests.helpers.tiny import COVERED, FAMILIES
from tests.helpers.variants import VARIANTS
from uniprune.conformance import MethodUnderTest, Models
from uniprune.engine import prune
from uniprune.errors import UnsupportedError
from uniprune.modeling.random_images import Size
from uniprune.modeling.tiny import TinyModel
from uniprune.registry import METHODS, MODELS

SETTINGS = (("sdpa", 1), ("eager", 3), ("sdpa", 3), ("eager", 1))
REFUSED = {
    "gemma4-e2b": ("fitprune", "pyramiddrop", "sparsevlm-v1", "vtw", "v2drop"),
    "gemma4-26b": ("transprune",),
}
"""Methods that prune, at some ratio of the checks, after layers whose keys later layers reuse, or that look inside
layers with experts beside their MLP."""


def cases() -> Iterator[ParameterSet]:
    """Yield every method on every family; in `make test` on one that has none yet, else every second method on one.

    `test_matrix.py` has every method in `make test`.
    """
    taken = Counter[str]()
    for i, name in enumerate(OURS):
        families = [one for one in COVERED if accepts(name, one) and name not in REFUSED.get(one, ())]
        chosen = min(families, key=taken.__getitem__, default="")
        chosen = chosen if i % 2 or not taken[chosen] else ""
        taken[chosen] += 1
        for j, family in enumerate(families):
            yield sampled(name, family, *SETTINGS[(i + i // 2 + j) % len(SETTINGS)], taken=family == chosen)


class ModelsAndVariants(Models):
    """Tiny models of families, and of their variants with another language model."""

    def tiny(self, family: str, size: Size) -> TinyModel:
        """As in the base class."""
        return VARIANTS[family](size) if family in VARIANTS else super().tiny(family, size)


@pytest.fixture(scope="module")
def models() -> Models:
    """Shared: methods that change them fail."""
    return ModelsAndVariants()


@pytest.mark.end_to_end
@pytest.mark.parametrize(("name", "family", "attention", "batch"), cases(), ids=str)
def test_method_keeps_the_rules(name: str, family: str, attention: str, batch: int, models: Models) -> None:
    check(MethodUnderTest(METHODS.get(name)(), family, models, attention=attention, batch=batch), AGAIN)


@pytest.mark.parametrize(("family", "name"), [(family, name) for family, names in REFUSED.items() for name in names])
def test_methods_that_cannot_be_exact_are_refused(family: str, name: str, models: Models) -> None:
    pruner = METHODS.get(name)().with_ratio(0.6)
    _, model = models.get(family, "sdpa", torch.float32, (4, 4))
    with (
        pytest.raises(UnsupportedError, match=r"reuse the keys of|methods that look inside layers"),
        prune(model, pruner),
    ):
        pass


def test_no_family_is_left_out() -> None:
    assert {*FAMILIES, *COVERED} - set(VARIANTS) == set(MODELS.names())


def test_the_sample_has_everything() -> None:
    _, families, *settings = zip(*(case.values for case in cases() if not case.marks), strict=True)
    assert {*families} == {*COVERED}
    assert {*zip(*settings, strict=True)} == {*SETTINGS}
