"""A serving engine can run a method or not, by what its class declares."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from uniprune.pruning.base import PreLLM, Pruner
from uniprune.pruning.load import load_method
from uniprune.pruning.serving import servable


@dataclass(frozen=True, kw_only=True)
class Counts(PreLLM):
    """Chooses its own number of tokens."""

    @property
    def exact(self) -> bool:
        return False


@dataclass(frozen=True, kw_only=True)
class Evicts(PreLLM):
    """Cuts the cache of later layers."""

    def evict_from(self, num_layers: int) -> int | None:
        return 3


@pytest.mark.parametrize(
    ("pruner", "why"),
    [
        (load_method("none"), ""),
        (load_method("divprune", ratio=0.5), ""),
        (load_method("divprune", ratio=0.5, scope="tile", order="release"), ""),
        (load_method("visionzip", ratio=0.5), "with quantities of the vision tower"),
        (load_method("cdpruner", ratio=0.5), "with the question"),
        (load_method("mmtok", ratio=0.5), "with quantities of the vision tower and with the question"),
    ],
)
def test_servable(pruner: Pruner, why: str) -> None:
    answer = servable(pruner)
    assert answer.yes
    assert answer.why.startswith(why)
    assert str(answer).startswith("yes")


@pytest.mark.parametrize(
    ("pruner", "why"),
    [
        (load_method("fastv", ratio=0.5, layer=2), "before decoder layer 2"),
        (load_method("divprune", ratio=0.5) >> load_method("fastv", ratio=0.5), "before decoder layer 2"),
        (load_method("random-tower", ratio=0.5), "inside the vision tower"),
        (load_method("resize", ratio=0.5), "before they are processed"),
        (load_method("divprune", ratio=0.5, scope="prompt"), "all images of a prompt"),
        (load_method("dart-embeddings", ratio=0.5), "text beside the question"),
        (Counts(ratio=0.5), "chooses its number of tokens"),
        (Evicts(ratio=0.5), "KV cache"),
    ],
)
def test_not_servable(pruner: Pruner, why: str) -> None:
    answer = servable(pruner)
    assert not answer.yes
    assert why in answer.why
    assert str(answer) == f"no: {answer.why}"
