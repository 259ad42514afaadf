"""PixelPrune: drop patches that neighbouring pixels predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from uniprune.pruning.fields import Weight
from uniprune.pruning.tower import InTower
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._pixelprune import Metric, comparison, predicted, walked


@register_method(
    "pixelprune",
    code="OPPO-Mente-Lab/PixelPrune",
    licence="Apache-2.0",
    deviations=[
        "Paper: unknown; the rule is that of the release (Apache-2.0).",
        "Ours: the pixels and `tau` give the number of tokens; the ratio is nominal, but at 1 nothing is pruned.",
        "Release: reads Qwen3-VL's pixels only; here every tower that takes patches as one sequence does.",
        "Release: refuses videos; here each step in time is an image, and a token has the pixels of all its frames.",
        "Release: its random and connected-component baselines are not offered, nor its place after the tower.",
    ],
    releases={
        "test_releases_2026.test_pixelprune_without_anchors_may_keep_more": "A docstring promises fewer tokens without "
        "anchors (`anchored=false`). A slow drift then loses more tokens, whose errors add up; a noisy plane loses "
        "fewer.",
        "test_releases_2026.test_tau_has_no_effect_on_exact_pixelprune": "`tau` has no effect on `metric=exact`.",
    },
)
@dataclass(frozen=True, kw_only=True)
class PixelPrune(InTower):
    """Drops tokens whose pixels equal a prediction from their neighbours: lossless coding of the image.

    Flat pages keep few tokens, photographs nearly all. A token stays if it differs from its prediction, which is the
    token above where the upper left one equals the left but not the upper one, else the left one.

    Cost: O(N) comparisons of pixels, on the CPU.

    Args:
        method: "pred_2d" predicts from three neighbours; "raster" and "serpentine" walk along the rows, the second one
            back and forth, and compare with the last token that stays.
        metric: distance of two tokens: largest ("max") or mean absolute difference, root mean square, or "exact": none.
        tau: largest distance, of pixels from 0 to 1, at which tokens count as equal.
        anchored: whether pred_2d compares with what is left of the neighbours, so that errors do not add up.
    """

    method: Literal["pred_2d", "raster", "serpentine"] = "pred_2d"
    metric: Metric = "max"
    tau: Weight = 0.0
    anchored: bool = True

    @property
    def exact(self) -> bool:
        """False: the pixels decide."""
        return False

    def select(self, view: View, keep: int) -> Tensor:
        _, height, width = view.grid
        same = comparison(view.pixels.cpu(), self.metric, self.tau)
        if self.method == "pred_2d":
            stays = predicted(height, width, same, self.anchored)
        else:
            path = torch.arange(height * width).view(height, width)
            if self.method == "serpentine":
                path[1::2] = path[1::2].flip(1)
            stays = walked(path.flatten(), same)
        return stays.nonzero()[:, 0].to(view.cells.device)
