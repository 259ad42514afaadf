"""Greedy coverage against a direct reading of the rule."""

from __future__ import annotations

import pytest
import torch

from uniprune.pruning import coverage
from uniprune.pruning.coverage import each_most_covering, most_covering


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


def test_prompts_with_any_number_of_elements_are_covered_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the way of a CPU, and by that of a GPU, which fills the shorter ones up."""
    covers = [torch.randn(20, count, generator=torch.Generator().manual_seed(count)) for count in (31, 40, 33)]
    want = [most_covering(own, 9).tolist() for own in covers]
    assert each_most_covering(covers, 9).tolist() == want
    together = torch.stack([own[:, :31] for own in covers])
    alone = [most_covering(own, 9, factor=own[:, 0].abs(), bonus=own[:, 1]).tolist() for own in together]
    for _ in range(2):
        picks = most_covering(together, 9, factor=together[..., 0].abs(), bonus=together[..., 1])
        assert picks.tolist() == alone
        monkeypatch.setattr(coverage, "on_cpu", lambda x: False)
    assert each_most_covering(covers, 9).tolist() == want
