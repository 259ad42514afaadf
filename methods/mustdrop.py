"""MustDrop: drop tokens at the vision, prefill and decode stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from uniprune.pruning.base import Cosine, Count, PreLLM, Selection, Share, Stage
from uniprune.pruning.functional import at_least_float32
from uniprune.pruning.schedules import Staged, between
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._mustdrop import dual_filter, key_tokens, similar_windows

TOKENS = 576
# Ratio -> thresholds on summed and on largest attention, as released for 576 tokens.
PUBLISHED = {1 / 9: [0.011, 0.01], 2 / 9: [0.0012, 0.001], 1 / 3: [0.001, 0.001], 1.0: [0.0, 0.0]}


@register_method("mustdrop", paper="arXiv 2411.10803")
@dataclass(frozen=True, kw_only=True)
class MustDrop(Staged):
    """Merges similar windows, drops what no text looks at, evicts it from the cache (Liu et al., arXiv 2411.10803).

    Vision: 3 x 3 windows of similar patches become their mean; the 8 % of tokens with the highest CLS attention are
    never dropped. Prefill: after layers 2, 6, 10 and 14 of 32 a token goes if both its summed and its largest attention
    from the text rows are below thresholds. Decode: layers 2 to 14 forget keys and values of what was dropped later.

    Args:
        global_threshold, individual_threshold: for an image of 576 tokens and scaled with 576 / N; by default those
            released for the ratios 1/3, 2/9 and 1/9, interpolated between them.
        similarity: mean pairwise cosine from which a window is merged. window: its side.
        key_share: share of tokens never dropped. evict: whether decoding forgets.

    Budget: adaptive. The ratio is nominal; what is measured depends on the data.

    Differs from the paper in: the vision tower runs on all patches and projected tokens are merged, so CLS attention of
    a merged token is the mean of its parts'; windows are of LLM tokens. Differs from the release in: a merged token
    takes the place of its window's centre, original positions are kept (cached keys and generated tokens agree, which
    they do not in the release), thresholds scale with image size, towers without CLS rank by received attention. Cost:
    the text attention rows of four layers, one vision attention row.
    """

    layer: int = 3
    global_threshold: Share | None = None
    individual_threshold: Share | None = None
    similarity: Cosine = 0.8
    window: Count = 3
    key_share: Share = 0.08
    evict: bool = True
    exact: ClassVar[bool] = False
    kind: ClassVar[str] = "hybrid"
    llm_attention: ClassVar[bool] = True
    reference: ClassVar[tuple[int, ...]] = (3, 7, 11, 15)

    @property
    def vision_layers(self) -> tuple[int | None, ...]:
        """What block 0 returns, and the last block's attention."""
        return (1, -1)

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """Merging before layer 0, filtering before the pruning layers; nothing at ratio 1."""
        filters = super().schedule(num_layers)
        return (Stage(0, 1.0, WindowMerging(method=self)), *filters) if filters else ()

    def evict_from(self, num_layers: int) -> int | None:
        """The layer whose attention the first filter reads."""
        return self.pruning_layers(num_layers)[0] - 1 if self.evict and self.ratio < 1 else None

    def select(self, view: View, keep: int) -> Tensor:
        """Tokens that pass the filter, and key tokens."""
        both = between(PUBLISHED, self.ratio)
        chosen = (self.global_threshold, self.individual_threshold)
        limits = [default if own is None else own for default, own in zip(both, chosen, strict=True)]
        attention = view.attention(view.following).mean(0)
        passed = dual_filter(attention, *(limit * TOKENS / view.initial for limit in limits))
        keys = view.scratch["key cells"].to(view.cells.device)  # noted before layer 0, which may lie elsewhere
        return (passed | torch.isin(view.cells, keys)).nonzero()[:, 0]


@dataclass(frozen=True, kw_only=True)
class WindowMerging(PreLLM):
    """The vision stage of `method`: merges windows and notes the key tokens."""

    method: MustDrop = field(repr=False)
    exact: ClassVar[bool] = False

    def select(self, view: View, keep: int) -> Selection:
        """Untouched tokens and window centres, which become means."""
        windows = similar_windows(view.vision.hidden(1), view.grids, self.method.window, self.method.similarity)
        centres = windows[:, windows.shape[1] // 2]
        stays = torch.ones(len(view.tokens), dtype=torch.bool, device=windows.device)
        stays[windows.flatten()] = False
        stays[centres] = True
        tokens, importance = at_least_float32(view.tokens).clone(), view.vision.importance(-1).clone()
        tokens[centres], importance[centres] = tokens[windows].mean(1), importance[windows].mean(1)
        kept = stays.nonzero()[:, 0]
        view.scratch["key cells"] = view.cells[kept[key_tokens(importance[kept], self.method.key_share)]]
        return Selection(kept, tokens[kept])
