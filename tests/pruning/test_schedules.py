"""Meaning of the ratio of a method with several pruning points, its layers, and the fields that it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from uniprune.errors import UserError
from uniprune.methods.dart import DART
from uniprune.methods.fitprune import FitPrune
from uniprune.methods.mustdrop import MustDrop
from uniprune.methods.pyramiddrop import PyramidDrop
from uniprune.methods.sparsevlm import SparseVLM
from uniprune.methods.sparsevlm_v1 import SparseVLMv1
from uniprune.methods.sparsevlm_v2 import SparseVLMv2
from uniprune.methods.vtw import VTW
from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import layer_average, tokens_per_layer, with_average
from uniprune.pruning.schedules import MultiStage, between

SCHEDULED: list[type[MultiStage]] = [PyramidDrop, FitPrune, SparseVLM, SparseVLMv2]


@pytest.mark.parametrize("method", SCHEDULED)
@pytest.mark.parametrize("num_layers", [2, 5, 6, 24, 28, 32, 40])
@pytest.mark.parametrize("ratio", [0.01, 1 / 9, 1 / 3, 0.9])
def test_the_ratio_is_the_average_from_the_first_pruning_layer_on(
    method: type[MultiStage], num_layers: int, ratio: float
) -> None:
    pruner = method(ratio=ratio)
    stages, first = pruner.schedule(num_layers), pruner.pruning_layers(num_layers)[0]
    counts = tokens_per_layer(576, stages, num_layers)
    assert counts[:first] == [576] * first
    assert sum(counts[first:]) / (num_layers - first) == pytest.approx(576 * ratio, abs=0.51 if ratio > 0.01 else 1)


@pytest.mark.parametrize("method", [*SCHEDULED, VTW])
@pytest.mark.parametrize(("num_layers", "average"), [(32, 1 / 3), (28, 1 / 3), (28, 0.9)])
def test_protocol_average(method: type[Pruner], num_layers: int, average: float) -> None:
    pruner = with_average(method(ratio=average), average, num_layers)
    off = abs(layer_average(pruner.schedule(num_layers), num_layers) - average)
    assert off <= (0.5 / num_layers + 1e-9 if method is VTW else 1e-6)


def test_an_average_below_the_first_layers_names_the_remedy() -> None:
    with pytest.raises(UserError, match="prune earlier or keep more"):
        with_average(PyramidDrop(), 0.111, 32)
    pruner = with_average(PyramidDrop(layer=2), 0.111, 32)
    assert layer_average(pruner.schedule(32), 32) == pytest.approx(0.111, abs=1e-6)


@pytest.mark.parametrize(
    ("pruner", "num_layers", "layers"),
    [
        (SparseVLM(), 32, [3, 7, 16]),
        (SparseVLM(), 28, [3, 6, 14]),
        (SparseVLM(), 64, [6, 14, 32]),
        (SparseVLM(), 5, [1, 2, 3]),
        (SparseVLM(), 3, [1, 2]),
        (SparseVLM(layer=2), 28, [2, 6, 14]),
        (SparseVLM(layers=(4, 5, 20)), 28, [4, 5, 20]),
        (PyramidDrop(), 28, [7, 14, 21]),
        (PyramidDrop(layers=(2, 4, 6, 8)), 28, [2, 4, 6, 8]),
        (SparseVLMv1(), 32, [3, 7, 16, 20]),
        (MustDrop(), 32, [3, 7, 11, 15]),
        (FitPrune(), 4, [1, 2, 3]),
    ],
)
def test_layers_scale_with_depth(pruner: Any, num_layers: int, layers: list[int]) -> None:
    assert pruner.pruning_layers(num_layers) == layers


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: PyramidDrop(layers=(3, 3)), "must increase"),
        (lambda: PyramidDrop(budget="avg"), "budget 'avg' is unknown; expected one of site, paper"),  # type: ignore[arg-type]
        (lambda: PyramidDrop(layers=(2, 32), ratio=0.5).schedule(32), "layer 32 is outside"),
        (lambda: SparseVLM(layer=40, ratio=0.5).schedule(32), "layer 40 is outside"),
        (lambda: SparseVLM(layers=(1, 2, 3, 4), ratio=0.5).schedule(32), "prunes before 3 layers"),
        (lambda: SparseVLM(layers=(0, 2)), "does not exist before layer 0"),
        (lambda: VTW(layer=3), "follows from its ratio"),
        (lambda: FitPrune(layer=2), "leave out layer"),
        (lambda: FitPrune(recipe=(600,)), "must leave some"),
        (lambda: FitPrune(recipe=(-1,)), r"recipe \(-1,\) must be"),
        (lambda: DART(visual_pivots=0), "visual_pivots 0 must be a whole number of at least 1"),
        (lambda: DART(text_pivots=-1), "text_pivots -1 must be a whole number of at least 0"),
        (lambda: SparseVLMv1(scale=-1.0), "scale -1.0 must be a finite number above 0 or None"),
        (lambda: SparseVLMv2(heads=1.5), "heads 1.5 is outside"),
        (lambda: MustDrop(window=0), "window 0"),
        (
            lambda: MustDrop(individual_threshold=2.0),
            r"individual_threshold 2.0 must be a finite number in \[0, 1\] or None",
        ),
    ],
)
def test_refused_fields(make: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()


def test_interpolation() -> None:
    table = {0.0: [0.0, 0.0], 0.5: [1.0, 0.5], 1.0: [1.0, 1.0]}
    assert between(table, 0.5) == [1.0, 0.5]
    assert between(table, 0.25) == [0.5, 0.25]
    assert between(table, -1) == [0.0, 0.0]
    assert between(table, 2) == [1.0, 1.0]
