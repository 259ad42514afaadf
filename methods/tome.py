"""ToMe: merge the most similar tokens in every block of the vision tower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from uniprune.pruning.base import Selection
from uniprune.pruning.fields import Cosine, NonNegative
from uniprune.pruning.functional import at_least_float32
from uniprune.pruning.tower import MergesInTower
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._tome import constant, matched, merged, spread


@register_method(
    "tome",
    paper="arXiv 2210.09461",
    code="facebookresearch/ToMe",
    licence="CC BY-NC 4.0",
    deviations=[
        "Release: not used, but for the rounding of `r`.",
        "Paper: r tokens per block; here blocks together merge what the budget requests, in shares by `inflection`. "
        "Where a block would merge more than half of its tokens, it merges in rounds, by the mean keys.",
        "Paper: unmerged even tokens are followed by the odd ones; here every survivor stays in its place.",
        "Paper: an image classifier; here the last block whose states the model projects merges last. Equal "
        "similarities, on which it is silent, go to the lower odd, then the lower even token.",
    ],
    releases={
        "test_releases_2026.test_tome_merges_fewer_than_r_per_block": "Every block's number is rounded down: 24 blocks "
        "merge 181 tokens instead of 192 for r = 8 and the decreasing schedule (`inflection=-1`).",
        "test_releases_2026.test_tome_reorders_tokens": "Without a class token it sorts unmerged tokens by similarity.",
    },
)
@dataclass(frozen=True, kw_only=True)
class ToMe(MergesInTower):
    """Token merging: each block averages the pairs of tokens whose keys are most alike (arXiv 2210.09461).

    Every second token has an edge to the most similar of the others; the best edges merge, weighted by size, and
    attention counts a merged token as many times as it has patches. CLIP and SigLIP with a projector of single patches.

    Cost: O(N^2 d) in every block.

    Args:
        inflection: from -1, early blocks merge most and the last none, over 0, all alike, to 1, late ones merge most.
        r: tokens merged per block as the paper counts, at most half; 0 follows the ratio, which is nominal otherwise.
    """

    inflection: Cosine = 0.0
    r: NonNegative = 0

    @property
    def exact(self) -> bool:
        """Return whether the ratio gives the number of tokens."""
        return self.r == 0

    def plan(self, tokens: int, keep: int, blocks: int) -> Sequence[int]:
        if self.exact:
            return spread(tokens - keep, blocks, self.inflection)
        found = list[int]()
        for wanted in constant(self.r, blocks, self.inflection):
            found.append(min(wanted, (tokens - sum(found)) // 2))
        return found

    def select(self, view: View, keep: int) -> Selection:
        block, indices = view.block, view.cells
        states, keys, sizes = at_least_float32(view.tokens), at_least_float32(block.keys).mean(0), block.sizes
        sizes = sizes.to(states)
        while len(indices) > keep:
            r = min(len(indices) - keep, (len(indices) - block.protected) // 2)
            sources, targets = matched(keys, r, block.protected)
            left = torch.ones_like(sizes, dtype=torch.bool).index_fill_(0, sources, False)
            states, keys = (merged(values, sizes, sources, targets)[left] for values in (states, keys.to(states)))
            sizes, indices = sizes.index_add(0, targets, sizes[sources])[left], indices[left]
        block.merged = sizes
        return Selection(indices, states.to(view.tokens))
