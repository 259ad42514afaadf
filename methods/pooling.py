"""Pooling: average neighbouring tokens."""

from __future__ import annotations

from dataclasses import dataclass

from uniprune.pruning.base import PreLLM, Selection
from uniprune.pruning.functional import at_least_float32
from uniprune.pruning.grids import pool_grid
from uniprune.pruning.view import Space, View
from uniprune.registry import register_method


@register_method(
    "pooling",
    paper="arXiv 2511.02650",
    deviations=[
        "Paper: it only names the baseline, so any size of grid and any budget is a choice made here; a fixed pooling "
        "window could reach a few budgets only.",
    ],
)
@dataclass(frozen=True, kw_only=True)
class Pooling(PreLLM):
    """Average pooling of the token grid to exactly the budget (baseline of UniPruneBench, arXiv 2511.02650).

    Every image (tile, frame) is cut into rectangles, each of which becomes its mean at the position of its middle
    token. A quarter of an even square grid is 2 x 2 pooling.

    Cost: O(N D).

    Args:
        space: "llm" averages projected tokens, "vision" features that are projected afterwards (FoPru's ablation
            without significance, arXiv 2411.14164).
    """

    space: Space = "llm"

    def select(self, view: View, keep: int) -> Selection:
        slots, means = pool_grid(at_least_float32(view.features(self.space)), view.grids, keep)
        return Selection(slots, view.project(means, self.space))
