"""Budgets: one rounding rule, one solver, and messages for ratios that mean nothing."""

import math
from dataclasses import dataclass

import pytest

from uniprune.errors import UserError
from uniprune.pruning.base import IntraLLM, PreLLM, Pruner, Stage
from uniprune.pruning.budget import (
    check_ratio,
    declared,
    floor_count,
    keep_count,
    layer_average,
    site_ratio,
    tokens_per_layer,
    with_average,
)


@dataclass(frozen=True, kw_only=True)
class Pyramid(IntraLLM):
    """Prunes at layers 2, 4 and 6, the same share each time."""

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        share = self.ratio ** (1 / 3)
        return tuple(Stage(layer, share, self) for layer in (2, 4, 6))


@pytest.mark.parametrize(
    ("tokens", "ratio", "kept"),
    [
        (576, 0.111, 64), (576, 0.222, 128), (576, 0.333, 192),
        (144, 0.111, 16), (144, 0.222, 32), (144, 0.333, 48),
        (5, 0.5, 3), (7, 0.5, 4), (10, 0.01, 1), (10, 1.0, 10), (0, 0.5, 0),
    ],
)  # fmt: skip
def test_counts_round_half_up_and_keep_at_least_one(tokens: int, ratio: float, kept: int) -> None:
    assert keep_count(tokens, ratio) == kept


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.0001, math.nan, math.inf])
def test_ratio_outside_range_is_refused(ratio: float) -> None:
    with pytest.raises(UserError, match=r"outside \(0, 1\]"):
        check_ratio(ratio)


def test_paper_average_on_28_layers() -> None:
    assert site_ratio(0.111, layer=2, num_layers=28) == pytest.approx(0.0426, abs=1e-4)


def test_average_out_of_reach_names_the_remedy() -> None:
    with pytest.raises(UserError, match="prune earlier or keep more"):
        site_ratio(0.05, layer=2, num_layers=28)
    with pytest.raises(UserError, match="prune earlier or keep more"):
        with_average(IntraLLM(layer=2), 0.05, 28)


@pytest.mark.parametrize("average", [0.111, 0.3, 0.9, 1.0])
def test_solver_agrees_with_the_closed_form_for_one_pruning_point(average: float) -> None:
    solved = with_average(IntraLLM(layer=2), average, 28)
    assert solved.ratio == pytest.approx(site_ratio(average, 2, 28), abs=1e-9)


@pytest.mark.parametrize("average", [0.4, 0.7])
@pytest.mark.parametrize("pruner", [Pyramid(), PreLLM() >> IntraLLM(layer=3)], ids=["schedule", "composition"])
def test_solver_reaches_the_average_of_any_schedule(pruner: Pruner, average: float) -> None:
    solved = with_average(pruner, average, 8)
    assert layer_average(solved.schedule(8), 8) == pytest.approx(average, abs=1e-9)


def test_expected_tokens_follow_the_stages() -> None:
    stages = (Stage(0, 0.5, PreLLM()), Stage(2, 0.5, IntraLLM()))
    assert tokens_per_layer(10, stages, 4) == [5, 5, 3, 3]
    assert tokens_per_layer(0, stages, 4) == [0, 0, 0, 0]


def test_stages_of_one_method_count_from_what_arrived_at_its_first() -> None:
    """Otherwise the roundings of a long schedule would add up: 10 -> 7 -> 5 -> 3, not 10 -> 7 -> 4 -> 1."""
    method = IntraLLM()
    stages = [Stage(layer, share, method) for layer, share in ((0, 0.7), (1, 0.5), (2, 0.3))]
    assert tokens_per_layer(10, stages, 4) == [7, 5, 3, 3]


@pytest.mark.parametrize(("items", "ratio", "kept"), [(8, 0.125, 1), (7, 0.5, 3), (100, 0.29, 29), (3, 0.1, 1)])
def test_samples_and_answer_tokens_are_rounded_down(items: int, ratio: float, kept: int) -> None:
    assert floor_count(items, ratio) == kept


def test_a_stage_in_the_tower_rounds_every_tile_apart() -> None:
    after = IntraLLM(layer=2, ratio=0.5)
    stages = (Stage(0, 0.3, PreLLM(), 1), Stage(2, 0.5, after))
    assert declared([(1, 2, 4)] * 3, stages, 4) == [6, 6, 3, 3]
    assert declared([(1, 2, 4)] * 3, (Stage(0, 0.3, PreLLM()), *stages[1:]), 4) == [7, 7, 4, 4]
    assert declared([(2, 3, 3)], stages, 3) == [6, 6, 3]
