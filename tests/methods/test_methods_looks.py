"""Rules of the methods that look at states inside the decoder, on small numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from uniprune.errors import UserError
from uniprune.methods.transprune import TransPrune
from uniprune.methods.v2drop import V2Drop
from uniprune.pruning.budget import layer_average
from uniprune.pruning.looks import Look, Passage


def rows(entering: Tensor, leaving: Tensor) -> Tensor:
    """Return TransPrune's transitions of one sequence."""
    real = torch.ones(1, len(entering), dtype=torch.bool)
    return TransPrune().look(Passage(Look(6, "mlp"), entering[None], leaving[None], real))[0]


def test_layers_after_a_cut_weigh_more_in_transprune() -> None:
    """The same tokens, half of which have gone: by `TransPrune.look` the others' transitions double."""
    generator = torch.Generator().manual_seed(0)
    entering, leaving = torch.randn(2, 6, 8, generator=generator).repeat(1, 2, 1)
    torch.testing.assert_close(rows(entering[:6], leaving[:6]), 2 * rows(entering, leaving)[:6])


def test_states_of_zeros_have_transitions() -> None:
    for entering, leaving in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0)):
        found = rows(torch.full((3, 4), entering), torch.full((3, 4), leaving))
        assert bool(found.isfinite().all())


@pytest.mark.parametrize("left", [(), (1.0, 0.5), (0.5, 0.5), (0.5, 0.7), (0.0,)])
def test_shares_that_do_not_fall_are_refused(left: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="must fall from below 1"):
        V2Drop(left=left)


@pytest.mark.parametrize("method", [V2Drop, TransPrune])
@pytest.mark.parametrize("layers", [5, 28, 32])
def test_the_ratio_is_the_average_from_the_first_cut_on(method: type[V2Drop | TransPrune], layers: int) -> None:
    for ratio in (0.05, 0.111, 0.5, 0.9):
        stages = method(ratio=ratio).schedule(layers)
        before = stages[0].layer
        average = (layer_average(stages, layers) * layers - before) / (layers - before)
        assert average == pytest.approx(ratio, abs=1e-6)
    assert method().schedule(layers) == ()


def test_more_layers_than_shares_are_refused() -> None:
    with pytest.raises(UserError, match=r"V2Drop prunes before 2 layers, got \[1, 2, 3\]"):
        V2Drop(ratio=0.5, layers=(1, 2, 3), left=(0.5, 0.2)).schedule(32)
