"""Shared by the versions of SparseVLM: text raters, published schedules, and recycling of dropped tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from uniprune.pruning.base import Selection
from uniprune.pruning.clustering import density_peaks
from uniprune.pruning.fields import NonNegative
from uniprune.pruning.functional import at_least_float32, group_means, rows_of, top_k
from uniprune.pruning.schedules import MultiStage, between
from uniprune.pruning.view import View

TOKENS = 576
"""Tokens of an image in LLaVA-1.5-7B, for which the schedules are published."""
RECYCLED, CLUSTER = 0.3, 10
"""As released: share of the dropped tokens that is recycled, and how many of these make a cluster."""


@dataclass(frozen=True, kw_only=True)
class Scheduled(MultiStage):
    """A version with published schedules: average tokens -> tokens left after layers 2, 6 and 15 of LLaVA-1.5-7B."""

    layer: NonNegative = 3
    kind: ClassVar[str] = "hybrid"  # as in UniPruneBench's taxonomy: embeddings choose the text that ranks
    llm_attention: ClassVar[bool] = True
    reference: ClassVar[tuple[int, ...]] = (3, 7, 16)
    published: ClassVar[dict[int, tuple[int, ...]]]

    def shares(self, level: float, layers: Sequence[int], num_layers: int) -> list[float]:
        """The published schedules, interpolated."""
        table = {average / TOKENS: [count / TOKENS for count in row] for average, row in self.published.items()}
        return between(table, level)[: len(layers)]


def text_raters(visual: Tensor, text: Tensor) -> Tensor:
    """[R] indices of the text tokens that the image is about.

    Every visual token [N, D] spreads its softmax over the text [T, D]; raters get more than the mean share, or are all.
    """
    share = (at_least_float32(visual) @ at_least_float32(text).T).softmax(-1).mean(0)
    above = share > share.mean()
    return (above | ~above.any()).nonzero()[:, 0]


def raters(view: View) -> Tensor:
    """[R] indices into `view.text`, chosen once per image from the embeddings that entered layer 0."""
    if "raters" not in view.scratch:
        text = view.embedded.text[view.following]
        view.scratch["raters"] = view.following[text_raters(view.embedded.tokens, text)]
    chosen: Tensor = view.scratch["raters"]
    return chosen


def recycled(dropped: int) -> tuple[int, int]:
    """Return how many of `dropped` tokens are recycled, and into how many clusters; one more of each than the share."""
    candidates = int(RECYCLED * dropped) + 1
    return candidates, candidates // CLUSTER + 1


def recycle(tokens: Tensor, scores: Tensor, kept: int, clusters: int, noise: Tensor | None = None) -> Selection:
    """Keep the `kept` best of `tokens` [..., N, D] and merge the best of the rest into `clusters` means.

    A mean takes the slot of its cluster's centre. `scores` are [..., N], `noise` is that of `density_peaks`.
    """
    order = top_k(scores, scores.shape[-1])
    best = order[..., :kept]
    if not clusters:
        return Selection(best)
    pool = order[..., kept : kept + recycled(scores.shape[-1] - kept)[0]]
    dropped = at_least_float32(rows_of(tokens, pool))
    centres, owner = density_peaks(dropped, clusters, noise)
    merged = group_means(dropped, owner, clusters)
    slots = torch.cat([best, pool.gather(-1, centres)], dim=-1)
    return Selection(slots, torch.cat([rows_of(tokens, best).to(merged), merged], dim=-2))
