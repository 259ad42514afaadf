"""EVS: keep what changes from frame to frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from uniprune.errors import UserError
from uniprune.pruning.functional import top_k
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

from ._video import Counts, OfVideo, alike, frames

TOO_FEW = (
    "EVS keeps the first of {} frames whole, {} tokens, but {} are the budget; use a ratio of at least {:.3g}, more "
    "frames, or counts=release"
)


@register_method(
    "evs",
    paper="arXiv 2510.14624",
    code="vllm-project/vllm",
    licence="Apache-2.0",
    deviations=[
        "Paper: unknown; the rule is that of vLLM and SGLang, which agree.",
        "Release: cosines are computed in float32.",
        "Release: the pruning rate is 1 - ratio. An image, or a video of one frame, keeps all its tokens.",
        "Release: positions are original. vLLM lets the text after a video of Qwen2.5-VL continue from the grid's "
        "width, which is not offered.",
        "Release: a view with several grids is refused: tiles of an image, or GLM's videos, whose frames are grids of "
        "their own.",
    ],
    releases={
        "test_methods_video.test_evs_counts": "Of 200 tokens 19 stay at a pruning rate of 0.9, as 1 - 0.9 is less "
        "than 0.1 (`counts=release`); at least as many stay as a frame has.",
        "test_releases_llm.test_evs_in_bfloat16_keeps_early_tokens": "In bfloat16, as served, most cells have changed "
        "as much as many others, and of equals the earliest stay.",
        "test_releases_llm.test_slow_drift_is_nothing_new_to_evs": "A cell that turns around slowly is dropped: "
        "frames are compared with the one before, not with what was kept.",
    },
)
@dataclass(frozen=True, kw_only=True)
class EVS(OfVideo):
    """Efficient video sampling: keeps the tokens least like the same place one frame before (arXiv 2510.14624).

    The first frame is kept whole; the others compete for one budget, so a frame may lose all its tokens. Slow drift is
    not noticed: each frame is compared with the one before, not with the last one kept.

    Cost: O(N D).

    Args:
        counts: "release" rounds down, but keeps at least as many tokens as a frame has, so the count may be above the
            budget and `exact` is False; "exact" meets the budget and refuses one below a frame.
    """

    counts: Counts = "release"

    def select(self, view: View | ViewBatch, keep: int) -> Tensor:
        x = frames(view)
        steps, size = x.shape[-3:-1]
        if self.counts == "release":
            keep = max(size, math.floor(steps * size * (1 - (1 - self.ratio))))
        elif keep < size:
            raise UserError(TOO_FEW.format(steps, size, keep, 1 / steps))
        change = 1 - F.cosine_similarity(x[..., 1:, :, :], x[..., :-1, :, :], dim=-1)
        first = torch.full_like(x[..., :1, :, 0], torch.inf)
        return top_k(torch.cat((first, change), dim=-2).flatten(-2), keep)

    def select_batch(self, batch: ViewBatch, keep: int, /) -> Tensor | None:
        return self.select(batch, keep) if alike(batch) else None
