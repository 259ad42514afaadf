"""A GPU starts hardly more kernels for the decisions of eight prompts than for two, and few: counted without one.

Tensors of the device "meta" have shapes only; what is not on a CPU takes the way of a GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.methods.test_batches import BATCHED, drawn, method
from tests.methods.test_degenerate_views import Rows, Vision
from uniprune.pruning import greedy
from uniprune.pruning.view_batch import ViewBatch

N, KEEP, META = 576, 64, torch.device("meta")
MOST = {
    "cdpruner": 30,
    "cdpruner-blocks": 60,
    "dart": 65,
    "divprune": 13,
    "fastv": 5,
    "fopru": 10,
    "gprune": 30,
    "hiprune": 26,
    "mmtok": 860,
    "prumerge": 38,
    "pyramiddrop": 5,
    "scope": 655,
    "visionzip": 42,
    "zspaprune": 45,
}
"""Kernels of a decision. DART sorts once for each of its eight pivots, SCOPE and MMTok add ten kernels per pick."""
MORE = {"gprune": 1, "hiprune": 1, "mmtok": 26, "zspaprune": 2}
"""More kernels per prompt: ZSPAPrune and MMTok read texts of any length, HiPrune grids of any size, G-Prune bounds the
memory of its rows."""
ELSEWHERE = {"random-pre", "random-intra", "vispruner", "sparsevlm", "holov", "priortr", "v2drop", "cdpruner-blocks"}
"""Draws, and HoloV's shares, are made on the CPU; VisPruner's rounds are one kernel; SparseVLM's clusters depend on
values, and PriorTR's rows on the length of each question; V2Drop ranks what a layer has
changed, CDPruner's blocks are CDPruners."""
VIEWS = ("view", "transpose", "unsqueeze", "expand", "slice", "select", "diagonal", "unbind", "split_with_sizes")
VIEWS = (*VIEWS, "alias", "permute", "detach", "squeeze", "t", "_unsafe_view")


class Operations(TorchDispatchMode):
    """Count operations, other than those that make no new tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[func.overloadpacket.__name__] += func.overloadpacket.__name__ not in VIEWS
        return func(*args, **(kwargs or {}))


class OneKernel:
    """Greedy kernels without arithmetic."""

    @staticmethod
    def farthest_points(distance: Tensor, nearest: Tensor, count: int, fresh: bool = False) -> Tensor:
        """Return [P, count]."""
        return nearest.new_empty(*nearest.shape[:-1], count, dtype=torch.int64)

    @staticmethod
    def dpp_map(kernel: Tensor, gain: Tensor, floor: Tensor, count: int) -> Tensor:
        """Return [P, count]."""
        return gain.new_empty(*gain.shape[:-1], count, dtype=torch.int64)


def gathered(prompts: int) -> ViewBatch:
    """Return a batch of views with equally long texts, whose quantities the engine has gathered."""
    views = []
    for seed in range(0, 10 * prompts, 10):
        view = drawn(N, "random", torch.bfloat16, seed)
        rows, vision = Rows(view.attention.values.to(META)), Vision(view.vision.values.to(META))  # type: ignore[attr-defined]  # stand-ins
        moved = {name: getattr(view, name).to(META) for name in ("tokens", "prompt", "text", "after")}
        views.append(replace(view, attention=rows, upcoming=rows, vision=vision, **moved))
    batch = ViewBatch(views)
    stacked: Any = batch.vision
    quantities = {
        name: getattr(stacked, name)() for name in ("importance", "received", "exchanged", "keys", "features")
    }
    last, keys = batch.attention("last"), batch.attention.keys("visual")
    vision = {name: lambda *_, _value=value, **__: _value for name, value in quantities.items()}
    own: Any = batch
    own.vision = SimpleNamespace(**vision, project=lambda features: features, patches=1)
    own.attention = own.upcoming = Stacked(last, keys)
    assert batch.tokens.shape == (prompts, N, batch.tokens.shape[-1])
    return batch


class Stacked:
    """Attention and keys that were gathered before."""

    def __init__(self, last: Tensor, visual: Tensor) -> None:
        self._last, self._visual = last, visual

    def __call__(self, rows: str) -> Tensor:
        """Return [P, heads, 1, N]."""
        return self._last

    def keys(self, rows: Any) -> Tensor:
        """Return [P, R, C]."""
        return self._visual if isinstance(rows, str) else self._visual[:, : len(rows[0])]


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Yield the counter of the operations in the block."""
    with Operations() as mode:
        yield mode.count


def operations(name: str, prompts: int) -> int:
    """Return the number of operations of one decision."""
    batch, pruner = gathered(prompts), method(name, "")
    with counted() as count:
        assert pruner.select_batch(batch, KEEP) is not None
    return count.total()


def test_no_method_is_left_out() -> None:
    assert {*MOST, *ELSEWHERE} == BATCHED


@pytest.mark.parametrize("name", MOST)
def test_operations_do_not_grow_with_the_prompts(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(greedy, "fused", lambda matrix: OneKernel)
    few, many = operations(name, 2), operations(name, 8)
    assert many - few == 6 * MORE.get(name, 0)
    assert many <= MOST[name]
