"""Scores that are NaN have no rank: they choose no token, on any device."""

from __future__ import annotations

import pytest
import torch

from uniprune.errors import PruningError
from uniprune.pruning.functional import top_k


def test_top_k_of_what_has_no_rank_is_refused() -> None:
    with pytest.raises(PruningError, match="2 of 4 scores are NaN, so there is no ranking"):
        top_k(torch.tensor([1.0, torch.nan, 0.5, torch.nan]), 1)
    assert top_k(torch.tensor([1.0, -torch.inf, torch.inf]), 2).tolist() == [2, 0]


def test_top_k_on_an_accelerator_returns_what_the_engine_refuses() -> None:
    """Without waiting for the scores: the meta device has no values, so none can have been read."""
    assert top_k(torch.empty(4, device="meta"), 2).shape == (2,)
