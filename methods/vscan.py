"""VScan: attended tokens of every window early in the tower and of the image late in it, with the others merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch

from uniprune.pruning.base import Selection
from uniprune.pruning.fields import Bound
from uniprune.pruning.functional import top_k
from uniprune.pruning.view import TowerLayer, View
from uniprune.registry import register_method

from ._counts import Counted
from ._reading import Reading, as_qwen
from ._vscan import best_of_windows, with_dropped

Depth = Annotated[float, Bound(0, 1, above=True)]


@register_method(
    "vscan",
    paper="arXiv 2505.22654",
    code="Tencent/SelfEvolvingAgent",
    licence="MIT",
    deviations=[
        "Paper: the half in the tower only. The language model prunes again at a middle layer (16 in LLaVA-1.5, from "
        "96 to 32 tokens for 64 on average), so that a row of the paper's tables is not this method at that budget.",
        "Release: in LLaVA the half by windows is filled up with the best tokens elsewhere. Below 32 tokens, an error "
        "there, `counts=release` keeps none by windows.",
        "Release: windows are 6 x 6 tokens for LLaVA, 4 x 4 for Qwen2.5-VL; at the end of other grids they are larger.",
        "Release: towers without a CLS token other than Qwen2.5-VL's do as that; `reading` has any tower do as either. "
        "This is ours, as is the share of the depth on other towers.",
        "Release: one budget per image, not per LLaVA-NeXT tile (`scope=tile`).",
        "Release: original positions are kept (`positions=compact` renumbers as released for LLaVA).",
    ],
    releases={
        "test_releases_2026.test_vscan_loses_what_its_windows_cannot_share": "For LLaVA every window's share is "
        "rounded down and the rest lost (`counts=release`): 98 tokens instead of 100, 560 instead of 575.",
    },
)
@dataclass(frozen=True, kw_only=True)
class VScan(Counted):
    """Local and global scan of the vision tower, with merging (VScan, TMLR 2026, arXiv 2505.22654).

    Half of the tokens are the most attended of every window in an early layer of the tower, the other half those of the
    whole image in a late one. Every other token is merged into the one that is most like it, by their mean.

    Cost: O(N log N) for the choice, O((N - K) K D) for merging.

    Args:
        reading: "llava" gives each window an equal share; "qwen" takes the best tokens until a window is full. None for
            the latter where the tower has no CLS token.
        local_layer: the early layer: a block of the tower or, as a fraction of its depth, the first block from there on
            that attends to the whole image: the sixth of 24 in LLaVA-1.5, the eighth of 32 in Qwen2.5-VL, as released.
        vision_layer: the late layer; None for the block that makes the features.
    """

    reading: Reading | None = None
    local_layer: int | Depth = 1 / 4
    vision_layer: int | None = None

    @property
    def vision_layers(self) -> tuple[TowerLayer, ...]:
        """The early and the late layer."""
        return (self.local_layer, self.vision_layer)

    def select(self, view: View, keep: int) -> Selection:
        local = best_of_windows(view, self.local_layer, keep // 2, as_qwen(view, self.reading), self.exact)
        late = view.vision.importance(self.vision_layer).index_fill(0, local, -torch.inf)
        others = top_k(late, keep - (len(local) if self.exact else keep // 2))
        return with_dropped(view.tokens, torch.cat((local, others)))
