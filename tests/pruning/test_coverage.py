"""Greedy coverage against a direct reading of the rule."""

from __future__ import annotations

import torch

from uniprune.pruning.coverage import most_covering


def test_picks_are_those_of_a_direct_reading() -> None:
    generator = torch.Generator().manual_seed(0)
    covers = torch.randn(30, 45, generator=generator, dtype=torch.float64)
    factor, bonus = (torch.rand(30, generator=generator, dtype=torch.float64) for _ in range(2))
    picks: list[int] = []
    for _ in range(30):
        covered = covers[picks].amax(0).clamp(min=0) if picks else torch.zeros(45, dtype=torch.float64)
        scores = factor * (covers - covered).clamp(min=0).sum(1) + bonus
        scores[picks] = -torch.inf
        picks.append(int(scores.argmax()))
    assert most_covering(covers, 30, factor, bonus).tolist() == picks


def test_equal_gains_go_to_the_lowest_index_and_picks_stay_distinct() -> None:
    assert most_covering(torch.ones(4, 3), 4).tolist() == [0, 1, 2, 3]
    assert most_covering(torch.ones(4, 3), 0).tolist() == []
