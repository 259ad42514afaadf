"""PruneSID: group tokens by principal components, and keep what is essential and not redundant in every group."""

from __future__ import annotations

from dataclasses import dataclass

from uniprune.pruning.base import PreLLM, Selection
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._leading import following
from ._prunesid import components, essential
from ._reading import Reading, as_qwen


@register_method(
    "prunesid",
    paper="arXiv 2603.09480",
    code="ZhengyaoFang/PruneSID",
    licence="Apache-2.0 by its README",
    deviations=[
        "Paper: its compression ratio by the image's information is not in the release; the budget is fixed.",
        "Release: components are exact, in float64.",
        "Release: of groups with equally many picks the first is served first; the release's sort is unstable, which "
        "changes up to 7 tokens at 68 or more.",
        "Release: the class token, which it counts, is left out, as other families cannot project it (`cls=true`).",
        "Release: tokens are in raster order (`order=release`: class tokens, then group by group; on Qwen2-VL in "
        "raster order above 150 tokens). Original positions are kept (`positions=compact` renumbers as released for "
        "LLaVA).",
        "Release: one budget per image, not per LLaVA-NeXT tile (`scope=tile`), nor for all images of a prompt "
        "(`scope=prompt`), where it loses the text between them.",
        "Release: fewer than 4 tokens do not crash, nor are 16 the least.",
        "Release: towers without a CLS token other than Qwen2-VL's do as that; with `reading=llava` scores are there "
        "the attention that a token receives. Both are ours.",
    ],
    releases={
        "test_releases_2026.test_prunesid_chooses_otherwise_with_every_seed": "It is not deterministic: components "
        "are approximated from random numbers without a seed. Of six runs on one image of noise, two share 44 to 62 % "
        "of their tokens.",
    },
)
@dataclass(frozen=True, kw_only=True)
class PruneSID(PreLLM):
    """Principal components group tokens, suppression thins every group out (PruneSID, ICLR 2026, arXiv 2603.09480).

    Every token belongs to the principal component on which it loads most. In each group the best token suppresses
    those that are too similar to it, then the best of the rest; groups with many tokens left get most of the budget.

    Cost: O(N^2 C + N^3).

    Args:
        reading: "llava" takes features before the projector, CLS attention and the mean similarity; "qwen" takes
            projected tokens, a token's loading on its component and about half the mean. None for the latter where the
            tower has no CLS token.
        cls: whether class tokens take places of the budget (one per tile).
        vision_layer: block whose attention is used; None for the one that makes the features.
    """

    reading: Reading | None = None
    cls: bool = False
    vision_layer: int | None = None
    loadings = staticmethod(components)
    """Sizes [N, k] of the loadings of features [N, C] on the k leading components."""

    def select(self, view: View, keep: int) -> Selection:
        qwen = as_qwen(view, self.reading)
        head = view.vision.project(view.vision.cls_tokens(self.vision_layer)[:keep]) if self.cls else view.tokens[:0]
        features = view.tokens if qwen else view.vision.features()
        loadings, group = self.loadings(features, min(len(features), max(keep // 4, 4 if qwen else 1))).max(1)
        scores = loadings if qwen else view.vision.importance(self.vision_layer)
        return following(head, essential(features, scores, group, keep, len(head), qwen), view.tokens)
