"""FoPru: keep the tokens, or the rows of tokens, with the most attention among patches of the vision tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import top_k
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

from ._fopru import Significance, best_rows, significance

Strategy = Literal["rank", "row"]


@register_method(
    "fopru",
    paper="arXiv 2411.14164",
    deviations=[
        'Paper: it picks the better strategy per task; here "rank" is the default. Counts are rounded.',
        "Paper, where it is silent: a CLS token is left out of rows and columns without renormalising (with all "
        "columns every token emits the same, so the received attention always wins).",
        "Paper, where it is silent: an image has one budget; the paper's counts on LLaVA-NeXT suggest one per tile "
        "(`scope=tile`).",
        "Paper: attention is averaged over a token's patches before ranking; rows are those of the token grid, of all "
        "tiles together, ranked by their mean.",
    ],
)
@dataclass(frozen=True, kw_only=True)
class FoPru(PreLLM):
    """Focal pruning by attention among patches, token by token or row by row (FoPru, arXiv 2411.14164).

    A token's significance is the attention it emits to, or receives from, all patches, whichever varies more. Kept are
    the most significant tokens, or whole rows with the most significance, in their own order (`order=release`: best
    first, the paper's ablation without reordering; its ablation without significance is `pooling --set space=vision`).
    No code was released.

    Cost: O(H N^2 d) for the attention of one block.

    Args:
        strategy: "rank" keeps tokens; "row" keeps round(ratio * rows) whole rows, so the count is not the budget and
            `exact` is False.
        significance: "high-variance" is the paper, "low-variance" its ablation without variance selection.
        vision_layer: block whose attention is used; None for the family's default: the one that makes the features in
            LLaVA and InternVL, the last full-attention one in Qwen2.5-VL.
    """

    strategy: Strategy = "rank"
    significance: Significance = "high-variance"
    vision_layer: int | None = None

    @property
    def exact(self) -> bool:
        """False if whole rows are kept."""
        return self.strategy == "rank"

    def select(self, view: View, keep: int) -> Tensor:
        scores = significance(view.vision.exchanged(self.vision_layer), self.significance)
        return top_k(scores, keep) if self.strategy == "rank" else best_rows(scores, view.grids, self.ratio)

    def select_batch(self, batch: ViewBatch, keep: int, /) -> Tensor:
        return top_k(significance(batch.vision.exchanged(self.vision_layer), self.significance), keep)
