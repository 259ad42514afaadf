"""CDPruner: keep tokens that are diverse among each other and relevant to the question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import cosine_similarity
from uniprune.pruning.greedy import dpp_map
from uniprune.pruning.view import View
from uniprune.registry import register_method


@register_method("cdpruner", paper="arXiv 2506.10967")
@dataclass(frozen=True, kw_only=True)
class CDPruner(PreLLM):
    """Conditional diversity: a determinantal point process weighted by relevance (NeurIPS 2025, arXiv 2506.10967).

    The kernel is the cosine similarity of projected tokens, scaled on both sides by each token's relevance to the
    question; its greedy MAP set trades diversity for relevance without a coefficient.

    Differs from the paper in: relevance is the mean cosine between a projected token and the input embeddings of the
    question's tokens, in every family, since checkpoints carry no CLIP text tower; the authors advise the same space
    for models without one. The relevance scale spans the whole view (one image with all its tiles).
    Differs from the release in: it negates relevance, because CLIP's patch-text similarity is inverted (`invert`);
    picks stay distinct when the budget exceeds the kernel's rank; the kernel is float32; LLaVA-NeXT's tiles get one
    budget and kernel, not one each (`scope="tile"`, which scales relevance per tile, too); original positions are kept
    (`positions="compact"` renumbers as released).
    Families: CLS tokens, grids and system prompts play no role.
    Cost: O(N^2 D + N keep^2).

    Args:
        invert: prefer the tokens that are least similar to the question, as the release does in CLIP's space.
    """

    invert: bool = False
    needs_text: ClassVar[bool] = True
    scale_invariant: ClassVar[bool] = True

    def select(self, view: View, keep: int) -> Tensor:
        relevance = cosine_similarity(view.tokens, view.prompt).mean(-1)
        return dpp_map(conditional_kernel(view.tokens, unit_range(-relevance if self.invert else relevance)), keep)


def unit_range(relevance: Tensor) -> Tensor:
    """`relevance`, of any shape, moved and scaled to just above 0 up to 1; all ones if it is constant."""
    low, high = relevance.min(), relevance.max()
    return (relevance - low + 1e-6) / (high - low).clamp(min=1e-6)


def conditional_kernel(tokens: Tensor, relevance: Tensor) -> Tensor:
    """[N, N] similarity of `tokens` [N, D] weighted by `relevance` [N] of both."""
    return cosine_similarity(tokens).mul_(relevance[:, None]).mul_(relevance)
