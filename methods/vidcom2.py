"""VidCom2: more tokens for frames unlike the rest, and in each frame its least typical tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

from ._vidcom2 import least_typical, steady, typicality
from ._video import OfVideo, alike, frames


@register_method(
    "vidcom2",
    paper="arXiv 2505.14454",
    code="xuyang-liu16/VidCom2",
    licence="Apache-2.0",
    deviations=[
        "Release: the budget is met as in vLLM's port: what the frames have too many, or too few, is decided by "
        "typicality over all frames.",
        "Release: scores are computed in float32, not in the model's dtype.",
        "Release: an image is a video of one frame; the release prunes no images.",
        "Release: newlines are not counted; on LLaVA-Video, it adds 13 to every frame after pruning and drops none.",
        "Release: a view with several grids is refused: tiles of an image, or GLM's videos, whose frames are grids of "
        "their own.",
    ],
    releases={
        "test_releases_llm.test_vidcom2_does_not_hand_on_what_a_frame_cannot_take": "Counts miss the budget "
        "(`counts=release`): what a frame cannot take is not handed on.",
        "test_methods_video.test_vidcom2_rounds_halves_to_even": "A frame's count is rounded half to even "
        "(`counts=release`): 2 of 10 tokens and 4 of 14 at a quarter.",
    },
)
@dataclass(frozen=True, kw_only=True)
class VidCom2(OfVideo):
    """Video compression commander: frames unlike the video keep more (Liu et al., EMNLP 2025, arXiv 2505.14454).

    On the half of the channels that varies least, a token's typicality is its Gaussian similarity to the mean of the
    video plus that to the mean of its frame. Frames with low similarity to the video get larger shares of the budget;
    in each, the least typical tokens stay.

    Cost: O(N D).

    Args:
        counts: "exact" meets the budget as vLLM does; "release" keeps the authors' number in every frame, so the count
            is not the budget and `exact` is False.
    """

    def select(self, view: View | ViewBatch, keep: int) -> Tensor:
        typical, counts = typicality(steady(frames(view)), self.ratio)
        return least_typical(typical, counts, None if self.counts == "release" else keep)

    def select_batch(self, batch: ViewBatch, keep: int, /) -> Tensor | None:
        return self.select(batch, keep) if alike(batch) else None
