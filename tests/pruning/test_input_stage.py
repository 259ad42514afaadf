"""Input stages in compositions and budgets, and the grids that a budget allows."""

from __future__ import annotations

from itertools import product

import pytest

from uniprune.errors import UserError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.methods import DivPrune, FastV, Resize
from uniprune.pruning.base import Compose
from uniprune.pruning.budget import layer_average, with_average
from uniprune.pruning.input_stage import largest_grids

LAYERS = 8


@pytest.mark.parametrize("keep", [1, 2, 3, 7, 16, 30, 97])
def test_grids_are_those_to_which_nothing_can_be_added(keep: int) -> None:
    fitting = {grid for grid in product(range(1, keep + 1), repeat=2) if grid[0] * grid[1] <= keep}
    largest = {(h, w) for h, w in fitting if not fitting & {(h + 1, w), (h, w + 1)}}
    assert set(largest_grids(keep)) == largest
    assert len(largest_grids(keep)) == len(largest)


def test_alone_it_has_no_pruning_point() -> None:
    method = Resize(ratio=0.25)
    assert (method.schedule(LAYERS), method.input_stage, method.input_ratio) == ((), method, 0.25)
    assert not method.exact
    assert method.after_input().schedule(LAYERS) == ()
    assert method.after_input().input_stage is None


def test_of_a_composition_it_is_the_first_part() -> None:
    both = MethodSpec("resize+fastv", 0.25).pruner()
    assert isinstance(both, Compose)
    assert (both.input_stage, both.input_ratio) == (both.parts[0], 0.5)
    assert both.after_input() == FastV(ratio=0.5)
    three = MethodSpec("resize+divprune+fastv", 0.125).pruner()
    assert three.after_input() == DivPrune(ratio=0.5) >> FastV(ratio=0.5)
    assert [stage.layer for stage in three.schedule(LAYERS)] == [0, 2]
    plain = DivPrune(ratio=0.5) >> FastV(ratio=0.5)
    assert (plain.input_stage, plain.input_ratio, plain.after_input()) == (None, 1.0, plain)


def test_it_comes_first() -> None:
    with pytest.raises(UserError, match="Resize acts before the model; name it first"):
        MethodSpec("fastv+resize", 0.25).pruner()


@pytest.mark.parametrize("average", [0.2, 0.4, 0.8])
def test_averages_over_layers_count_what_it_leaves(average: float) -> None:
    both = with_average(MethodSpec("resize+fastv", average).pruner(), average, LAYERS)
    assert both.input_ratio * layer_average(both.schedule(LAYERS), LAYERS) == pytest.approx(average)
    assert with_average(Resize(ratio=average), average, LAYERS) == Resize(ratio=average)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer": 3}, "layer 3"),
        ({"scope": "prompt"}, "a budget for each image, not scope 'prompt'"),
        ({"form": "vtc-bench", "ratio": 0.3}, r"ratio 0.3 is none of 1, 0.25, 0.1111, 0.0625, 0.04, .*0.01"),
        ({"form": "vtc-bench", "ratio": 0.222}, "ratio 0.222 is none of"),
    ],
)
def test_what_has_no_meaning_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Resize(**fields)


@pytest.mark.parametrize(("ratio", "divisor"), [(1, 1), (0.25, 2), (0.111, 3), (1 / 9, 3), (0.0204, 7), (0.01, 10)])
def test_ratios_of_vtc_bench_are_whole_divisors(ratio: float, divisor: int) -> None:
    assert Resize(form="vtc-bench", ratio=ratio).divisor == divisor
