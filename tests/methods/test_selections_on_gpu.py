"""Selections at real sizes on a GPU: the choices of the CPU in float64, alone and together, and how often they wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from uniprune.methods._windows import all_windows, likeness
from uniprune.methods.gprune import graph_scores
from uniprune.methods.vispruner import important_and_diverse
from uniprune.pruning.clustering import density_peaks
from uniprune.pruning.functional import top_k

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("error:rankings are thinned out"),
    pytest.mark.filterwarnings("error:clusters are formed"),
]
SIZES = {256: (16, 16), 576: (24, 24), 1280: (32, 40), 2880: (48, 60)}
sizes = pytest.mark.parametrize("tokens", SIZES)


def batch(tokens: int, width: int = 256) -> Tensor:
    """Return [2, N, D] tokens around eight centres."""
    draw = torch.Generator().manual_seed(tokens)
    centres = torch.randn(8, width, generator=draw)[torch.arange(tokens) % 8]
    return (centres + 0.5 * torch.randn(2, tokens, width, generator=draw)).double()


def without_waiting(select: Callable[[], Tensor]) -> Tensor:
    select()  # what is prepared once
    torch.cuda.set_sync_debug_mode("error")
    try:
        return select()
    finally:
        torch.cuda.set_sync_debug_mode("default")


RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "gprune": lambda x: top_k(graph_scores(x, 0.5, 0.03, 5), x.shape[-2] // 9),
    "clusters": lambda x: density_peaks(x, x.shape[-2] // 30 + 1)[1],
    "vispruner": lambda x: important_and_diverse(x, x[..., 0].abs(), x.shape[-2] // 18, x.shape[-2] // 9, 8),
}


@sizes
@pytest.mark.parametrize("name", RULES)
def test_choices_of_the_cpu(tokens: int, name: str) -> None:
    x, rule = batch(tokens), RULES[name]
    there, want = x.cuda(), [rule(one).tolist() for one in x]
    assert without_waiting(lambda: rule(there)).tolist() == want
    assert without_waiting(lambda: rule(there[1])).tolist() == want[1]


@sizes
def test_windows_of_the_cpu(tokens: int) -> None:
    x, grids = batch(tokens)[0], [(1, *SIZES[tokens])]
    there = x.cuda()
    got = without_waiting(lambda: likeness(there, all_windows(grids, 3, there.device)))
    torch.testing.assert_close(got.cpu(), likeness(x, all_windows(grids, 3, x.device)))
