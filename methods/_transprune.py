"""Shares of scores in TransPrune, and what its release does."""

from __future__ import annotations

from torch import Tensor

SMALL = 1e-8
"""Least length of a state, and added to the sum of scores, as released."""
RELEASES = {
    "test_golden_looks.test_transprune": "Transitions are not changes of states from layer to layer, but between what "
    "enters an attention or MLP, after the norm, and what leaves it, before the residual connection.",
    "test_methods_looks.test_layers_after_a_cut_weigh_more_in_transprune": "A transition is a share of the whole "
    "sequence, text included, so layers after a cut, whose sequence is shorter, weigh more.",
}


def share(scores: Tensor) -> Tensor:
    """[N] scores as shares of their sum."""
    return scores / (scores.sum() + SMALL)
