"""FoPru: keep the tokens, or the rows of tokens, that attention inside the vision tower points at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from uniprune.pruning.base import PreLLM, Selection
from uniprune.pruning.budget import keep_count
from uniprune.pruning.functional import at_least_float32, group_means, pool_grid, top_k
from uniprune.pruning.view import Grid, View
from uniprune.registry import register_method

Strategy = Literal["rank", "row", "row-exact"]
Significance = Literal["high-variance", "low-variance", "emitted", "received", "pooling"]


@register_method("fopru", paper="arXiv 2411.14164")
@dataclass(frozen=True, kw_only=True)
class FoPru(PreLLM):
    """Focal pruning by attention among patches, token by token or row by row (FoPru, arXiv 2411.14164).

    A token's significance is the attention it emits to, or receives from, all patches, whichever varies more. Kept are
    the most significant tokens, or whole image rows with the most significance, in their original order.

    Differs from the paper in: it picks the better strategy per task, here "rank" is the default; counts are rounded;
    "row-exact" is ours. No code exists. Where the paper is silent: a CLS token is left out of rows and columns without
    renormalising (with all columns every token emits the same, so what is received always wins). Its counts on
    LLaVA-NeXT suggest a budget per tile (`scope="tile"`); by default an image has one.
    Families: the block that makes the features in LLaVA and InternVL, the last full-attention block in Qwen2.5-VL;
    attention is averaged over a token's patches before ranking. Rows are rows of the token grid, of all tiles together,
    ranked by their mean. System prompts play no role.
    Cost: O(H N^2 d) for the attention of one block.

    Args:
        strategy: "rank"; "row" keeps round(ratio * rows) whole rows, so the count is not the budget and `exact` is
            False; "row-exact" fills the budget with the best rows and the best tokens of the next row.
        significance: "high-variance" is the paper; "low-variance" its ablation without variance selection; "pooling"
            its ablation without significance (neighbouring tokens are averaged); or one direction always.
        reorder: False is the paper's ablation without reordering: best tokens (rows) first.
        vision_layer: block whose attention is used; None for the family's default.
    """

    strategy: Strategy = "rank"
    significance: Significance = "high-variance"
    vision_layer: int | None = None

    @property
    def exact(self) -> bool:
        """Unless whole rows are kept."""
        return self.strategy != "row" or self.significance == "pooling"

    def select(self, view: View, keep: int) -> Tensor | Selection:
        if self.significance == "pooling":
            slots, means = pool_grid(at_least_float32(view.features("vision")), view.grids, keep)
            return Selection(slots, view.project(means, "vision"))
        emitted, received = view.vision.exchanged(self.vision_layer)
        scores = significance(emitted, received, self.significance)
        ranks = row_ranks(scores, view.grids)
        if self.strategy == "rank":
            chosen = top_k(scores, keep)
        elif self.strategy == "row":
            chosen = whole_rows(ranks, keep_count(int(ranks.max()) + 1, self.ratio))
        else:
            chosen = rows_and_tokens(scores, ranks, keep)
        return chosen


def significance(emitted: Tensor, received: Tensor, choice: Significance) -> Tensor:
    """The direction, each [N], that `choice` names; of equally varying ones what is received."""
    emits = {
        "emitted": True,
        "received": False,
        "high-variance": bool(emitted.var(correction=0) > received.var(correction=0)),
        "low-variance": bool(emitted.var(correction=0) < received.var(correction=0)),
    }
    return emitted if emits[choice] else received


def row_ranks(scores: Tensor, grids: list[Grid]) -> Tensor:
    """[N] rank, 0 for the best, of the row each token lies in, by the row's mean of `scores` [N]."""
    widths = torch.tensor([w for t, h, w in grids for _ in range(t * h)], device=scores.device)
    row = torch.arange(len(widths), device=scores.device).repeat_interleave(widths)
    best = top_k(group_means(scores[:, None], row, len(widths))[:, 0], len(widths))
    return best.argsort()[row]


def whole_rows(ranks: Tensor, rows: int) -> Tensor:
    """Indices of all tokens in the `rows` best rows, best row first, in raster order within a row."""
    return ranks.argsort(stable=True)[: int((ranks < rows).sum())]


def rows_and_tokens(scores: Tensor, ranks: Tensor, keep: int) -> Tensor:
    """[keep] indices: row after row, best first, and the best tokens of the last one; best first within a row."""
    best = top_k(scores, len(scores))
    return best[ranks[best].argsort(stable=True)][:keep]
