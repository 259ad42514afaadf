"""Operations of one selection on a device that is no CPU: each is a launch, and launches are the time of small images.

Counted on tensors without data. Views of a tensor count, too: they take the host as long as launches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from uniprune.methods._mustdrop import passes
from uniprune.methods._sparsevlm import recycle
from uniprune.methods._windows import all_windows, likeness, merged
from uniprune.methods.gprune import graph_scores
from uniprune.pruning.clustering import density_peaks
from uniprune.pruning.functional import group_means, top_k


class Operations(TorchDispatchMode):
    """Count operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def away(*shape: int) -> Tensor:
    """Return a tensor on a device that is no CPU."""
    return torch.empty(shape, device="meta")


def windows(x: Tensor) -> Tensor:
    cells = torch.empty_like(all_windows([(1, 24, 24)], 3, torch.device("cpu")), device=x.device)
    return merged(x, cells, likeness(x, cells) >= 0.8)


SELECTIONS: dict[str, tuple[Callable[[Tensor], Any], int]] = {
    "gprune": (lambda x: top_k(graph_scores(x, 0.5, 0.03, 5), 64), 35),
    "clusters": (lambda x: group_means(x, density_peaks(x, 16)[1], 16), 51),
    "sparsevlm": (lambda x: recycle(x, x[:, 0], 30, 12), 66),
    "windows": (windows, 26),
    "passes": (lambda x: passes(x.T, 0.01, 0.01), 10),
}
"""Selections of 576 tokens by name, and the most operations of each."""


@pytest.mark.parametrize("name", SELECTIONS)
def test_operations_of_a_selection(name: str) -> None:
    select, most = SELECTIONS[name]
    with Operations() as operations:
        select(away(576, 64))
    assert operations.count.total() <= most, operations.count


def test_prompts_together_take_no_more() -> None:
    """Of G-Prune and of clustering."""
    for rule in (lambda x: graph_scores(x, 0.5, 0.03, 5), lambda x: density_peaks(x, 16)):
        counts = []
        for shape in ((8, 576, 64), (576, 64)):
            with Operations() as operations:
                rule(away(*shape))
            counts.append(operations.count.total())
        assert counts[0] <= counts[1] + 12
