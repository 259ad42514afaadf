"""From keep ratios to token counts: the only place where budgets are computed and rounded."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from uniprune.errors import UserError
from uniprune.pruning.placement import placed

if TYPE_CHECKING:
    from uniprune.pruning.base import Pruner, Stage

T = TypeVar("T", int, float)


def check_ratio(ratio: float) -> float:
    """Return the keep ratio.

    Raises:
        UserError: it is outside (0, 1] (NaN included).
    """
    if not 0.0 < ratio <= 1.0:
        raise UserError(f"keep ratio {ratio!r} is outside (0, 1]; 0.111 keeps one visual token in nine, 1 keeps all")
    return float(ratio)


def keep_count(tokens: int, ratio: float) -> int:
    """Return how many of `tokens` visual tokens a keep ratio leaves: round half up, at least one, at most all.

    A ratio of 0, which only schedules that withdraw all visual tokens contain, leaves none.

    576 tokens at 0.111, 0.222, 0.333 give 64, 128, 192; 144 give 16, 32, 48.
    """
    return min(tokens, max(1, math.floor(tokens * ratio + 0.5))) if tokens and ratio else 0


def floor_count(items: int, ratio: float) -> int:
    """Return how many of `items` samples or answer tokens a ratio leaves in fine-tuning: rounded down, at least one.

    8 samples at 0.125 give 1, 7 tokens at 0.5 give 3. The small addend undoes binary rounding (100 x 0.29 is 29).
    """
    return min(items, max(1, math.floor(items * ratio + 1e-9)))


def site_ratio(average: float, layer: int, num_layers: int) -> float:
    """Return the keep ratio at decoder layer `layer` with which the average over all layers is `average`.

    Every visual token enters the layers before `layer`, so the average is (K + (L - K) r) / L. With 11.1 % on 28
    layers, pruning at K = 2 must keep 4.3 %.

    Raises:
        UserError: the layers before `layer` alone already exceed the average.
    """
    check_ratio(average)
    rest = (average * num_layers - layer) / (num_layers - layer)
    if rest <= 0:
        raise UserError(
            f"an average keep ratio of {average:g} over {num_layers} layers cannot be reached by pruning at layer "
            f"{layer}: the layers before it already use {layer / num_layers:.3f}; prune earlier or keep more"
        )
    return min(1.0, rest)


def tokens_per_layer(tokens: int, stages: Iterable[Stage], num_layers: int) -> list[int]:
    """Count the visual tokens that enter each decoder layer when `tokens` reach the language model."""
    return _entering(tokens, stages, num_layers, keep_count)


def declared(grids: Sequence[tuple[int, int, int]], stages: Sequence[Stage], num_layers: int) -> list[int]:
    """Count the same for a token group of these grids (t, h, w), of which a stage in the tower rounds each apart."""
    tower = next((stage for stage in stages if stage.block is not None), None)
    tokens = sum(map(math.prod, grids))
    if tower is None:
        return tokens_per_layer(tokens, stages, num_layers)
    left = sum(t * keep_count(height * width, tower.ratio) for t, height, width in grids)
    return tokens_per_layer(left, [stage for stage in stages if stage is not tower], num_layers)


def layer_average(stages: Iterable[Stage], num_layers: int) -> float:
    """Return the share of visual tokens left, averaged over decoder layers, before any rounding."""
    return sum(_entering(1.0, stages, num_layers, operator.mul)) / num_layers


def _entering(tokens: T, stages: Iterable[Stage], num_layers: int, part: Callable[[T, float], T]) -> list[T]:
    """List what enters each layer if a stage leaves `part(x, ratio)` of the x at its pruner's first stage."""
    plan: dict[int, list[Stage]] = {}
    for stage in stages:
        plan.setdefault(stage.layer, []).append(stage)
    first: dict[int, T] = {}
    counts = []
    for layer in range(num_layers):
        for stage in plan.get(layer, ()):
            tokens = min(tokens, part(first.setdefault(id(stage.pruner), tokens), stage.ratio))
        counts.append(tokens)
    return counts


def with_average(pruner: Pruner, average: float, num_layers: int, attends: Sequence[bool] = ()) -> Pruner:
    """Return the same method with the total keep ratio at which its layer average is `average` (protocol "average").

    Works for any schedule, since the average grows with the ratio: for one pruning point the result is `site_ratio`.
    Where the average grows in steps, the nearest one is taken. `attends` is that of `placed`; empty where every layer
    has attention.

    Raises:
        UserError: even the smallest ratio leaves more than `average`, because of the layers before the first stage.
    """
    check_ratio(average)

    def share_at(ratio: float) -> tuple[float, tuple[Stage, ...]]:
        at = pruner.with_ratio(ratio)
        stages = placed(at.schedule(num_layers), attends)
        return at.input_ratio * layer_average(stages, num_layers), stages

    floor, stages = share_at(1e-9)
    if not stages:
        return pruner
    if floor >= average:
        raise UserError(
            f"an average keep ratio of {average:g} over {num_layers} layers cannot be reached by "
            f"{type(pruner).__name__} at layer {stages[0].layer}: the layers before it already use {floor:.3f}; "
            "prune earlier or keep more"
        )

    return pruner.with_ratio(inverse(lambda ratio: share_at(ratio)[0], average))


def inverse(growing: Callable[[float], float], value: float) -> float:
    """Return the x in (0, 1] at which a growing function takes `value`; where it grows in steps, the nearest one."""
    low, high = 1e-9, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if growing(middle) < value else (low, middle)
    return min(high, low, key=lambda x: abs(growing(x) - value))
