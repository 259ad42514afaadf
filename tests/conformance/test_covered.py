"""Every method on every family outside `test_matrix.py`, once: kernel and batch differ from method to method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
KINDS = ("pre-llm", "intra-llm", "hybrid")


def of_kind(kind: str) -> list[str]:
    """Return our methods of a kind."""
    return [name for name in OURS if METHODS.get(name).kind == kind]


def taken(family: str) -> list[str]:
    """Return the methods that `make test` takes on a family: one of every other kind, others on the next family."""
    j = COVERED.index(family)
    return [of_kind(kind)[j % len(of_kind(kind))] for k, kind in enumerate(KINDS) if (j + k) % 2]


REFUSED = {"gemma4-e2b": ("fitprune", "pyramiddrop", "sparsevlm-v1", "vtw")}
"""Methods that prune after layers whose keys later layers reuse, at some ratio of the checks."""


def cases() -> Iterator[ParameterSet]:
    """Yield every method on every family; `make test` takes some, `make test-all` all."""
    for j, family in enumerate(COVERED):
        for i, name in enumerate(OURS):
            if accepts(name, family) and name not in REFUSED.get(family, ()):
                yield sampled(name, family, *SETTINGS[(i + j) % len(SETTINGS)], taken=name in taken(family))


class ModelsAndVariants(Models):
    """Tiny models of families, and of their variants with another language model."""

    def get(self, family: str, attention: str, dtype: torch.dtype, size: Size) -> tuple[TinyModel, Any]:
        """As in the base class."""
        if family not in VARIANTS:
            return super().get(family, attention, dtype, size)
        key = (family, attention, dtype, size)
        if key not in self._models:
            tiny = VARIANTS[family](size)
            self._models[key] = tiny, tiny.model(attention, dtype)
        return self._models[key]


@pytest.fixture(scope="module")
def models() -> Models:
    """Shared: methods that change them fail."""
    return ModelsAndVariants()


@pytest.mark.end_to_end
@pytest.mark.parametrize(("name", "family", "attention", "batch"), cases(), ids=str)
def test_method_keeps_the_rules(name: str, family: str, attention: str, batch: int, models: Models) -> None:
    check(MethodUnderTest(METHODS.get(name)(), family, models, attention=attention, batch=batch), AGAIN)


@pytest.mark.parametrize(("family", "name"), [(family, name) for family, names in REFUSED.items() for name in names])
def test_methods_that_prune_after_reused_keys_are_refused(family: str, name: str, models: Models) -> None:
    pruner = METHODS.get(name)().with_ratio(0.6)
    _, model = models.get(family, "sdpa", torch.float32, (4, 4))
    with pytest.raises(UnsupportedError, match="reuse the keys of"), prune(model, pruner):
        pass


def test_no_family_is_left_out() -> None:
    assert {*FAMILIES, *COVERED} - set(VARIANTS) == set(MODELS.names())


def test_the_sample_has_every_method() -> None:
    """On some family at least, besides the two of `test_matrix.py`."""
    assert {name for family in COVERED for name in taken(family)} >= set(OURS) - {"none"}
