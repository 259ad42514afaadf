"""MustDrop: drop tokens at the vision, prefill and decode stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.base import Stage
from uniprune.pruning.fields import Cosine, Count, NonNegative, Share
from uniprune.pruning.schedules import Staged, between
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._mustdrop import KEYS, PUBLISHED, RELEASES, TOKENS, WindowMerge, passes


@register_method(
    "mustdrop",
    paper="arXiv 2411.10803",
    code="liuting20/MustDrop",
    deviations=[
        "Paper: the tower runs on all patches; LLM tokens are merged, and with them CLS attention, which is averaged.",
        "Release: a merged token is at its window's centre, positions are original; without CLS, attention received.",
    ],
    releases=RELEASES,
)
@dataclass(frozen=True, kw_only=True)
class MustDrop(Staged):
    """Merges similar windows, drops and evicts what no text attends to (Liu et al., arXiv 2411.10803).

    Vision: 3 x 3 windows of similar patches become their mean; the 8 % of tokens with the highest CLS attention are
    never dropped. Prefill: after layers 2, 6, 10 and 14 of 32 a token goes if its summed and its largest attention from
    the text are both below thresholds. Decode: layers 2 to 14 forget keys and values of what was dropped later. The
    ratio is nominal; how many stay depends on the data.

    Cost: the text attention rows of four layers, one vision attention row.

    Args:
        global_threshold: on summed attention, for 576 tokens; by default as released for 1/3, 2/9, 1/9, interpolated.
        individual_threshold: the same on the largest attention.
        similarity: mean pairwise cosine from which a window is merged.
        window: side of a window.
        key_share: share of tokens never dropped.
        evict: whether decoding forgets.
    """

    layer: NonNegative = 3
    global_threshold: Share | None = None
    individual_threshold: Share | None = None
    similarity: Cosine = 0.8
    window: Count = 3
    key_share: Share = 0.08
    evict: bool = True
    kind: ClassVar[str] = "hybrid"
    llm_attention: ClassVar[bool] = True
    reference: ClassVar[tuple[int, ...]] = (3, 7, 11, 15)

    @property
    def vision_layers(self) -> tuple[int | None, ...]:
        """The one whose input `WindowMerge` compares (the output of block 0), and the one whose attention it reads."""
        return (1, -1)

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        merge = WindowMerge(similarity=self.similarity, window=self.window, key_share=self.key_share)
        filters = super().schedule(num_layers)
        return (Stage(0, 1.0, merge), *filters) if filters else ()

    def evict_from(self, num_layers: int) -> int | None:
        return self.pruning_layers(num_layers)[0] - 1 if self.evict and self.ratio < 1 else None

    def select(self, view: View, keep: int) -> Tensor:
        own = (self.global_threshold, self.individual_threshold)
        limits = [x if y is None else y for x, y in zip(between(PUBLISHED, self.ratio), own, strict=True)]
        attention = view.attention(view.following).mean(0)
        passed = passes(attention, *(limit * TOKENS / view.initial for limit in limits))
        keys = view.scratch[KEYS].to(view.cells.device)  # noted before layer 0, which may be on another device
        stays: Tensor = passed | (view.cells[:, None] == keys).any(1)  # `isin` would sort, and wait for a device
        return stays.nonzero()[:, 0]
