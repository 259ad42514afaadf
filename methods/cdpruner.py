"""CDPruner: keep tokens that are diverse among each other and relevant to the question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import gram, relevance_of_units, unit_vectors
from uniprune.pruning.greedy import dpp_map
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

STEP = 1e-6
"""Least relevance, as released: keeps the kernel's diagonal above 0 and a constant relevance from dividing by 0."""


@register_method(
    "cdpruner",
    paper="arXiv 2506.10967",
    code="Theia-4869/CDPruner",
    deviations=[
        "Paper: relevance is the mean cosine between a projected token and the input embeddings of the question's "
        "tokens, in every family, since checkpoints carry no CLIP text tower; the authors advise the same for models "
        "without one.",
        "Paper: the relevance scale spans the whole view, one image with all its tiles.",
        "Release: relevance is not negated (`invert=true` is).",
        "Release: picks stay distinct when the budget exceeds the kernel's rank; the kernel is float32.",
        "Release: LLaVA-NeXT's tiles get one budget and kernel, not one each (`scope=tile`, which scales relevance "
        "per tile, too).",
        "Release: original positions are kept (`positions=compact` renumbers as released).",
    ],
    releases={
        "test_vit_rules.test_inverted_relevance_starts_at_the_least_similar_token": "Relevance to the question is "
        "negated (`invert=true`): in CLIP's space patches are least similar to what they show.",
        "test_releases_vit.test_cdpruner_repeats_itself_beyond_the_rank_of_its_kernel": "Beyond the rank of its "
        "kernel it picks one token again and again: of 32 asked for, fewer than 24 are distinct at rank 8.",
    },
)
@dataclass(frozen=True, kw_only=True)
class CDPruner(PreLLM):
    """Conditional diversity: a determinantal point process weighted by relevance (NeurIPS 2025, arXiv 2506.10967).

    The kernel is the cosine similarity of projected tokens, scaled on both sides by each token's relevance to the
    question; its greedy MAP set trades diversity for relevance without a coefficient.

    Cost: O(N^2 D + N keep^2).

    Args:
        invert: prefer the tokens that are least similar to the question, as the release does in CLIP's space.
    """

    invert: bool = False
    needs_text: ClassVar[bool] = True
    takes_gaps: ClassVar[bool] = True
    scale_invariant: ClassVar[bool] = True

    def select(self, view: View | ViewBatch, keep: int) -> Tensor:
        units = unit_vectors(view.tokens)
        similarity = relevance_of_units(units, view.prompt, torch.mean)
        return dpp_map(conditional_kernel(units, unit_range(-similarity if self.invert else similarity)), keep)

    select_batch = select


def unit_range(relevance: Tensor) -> Tensor:
    """Shift and scale `relevance` [..., N] to (0, 1]; all ones if it is constant."""
    return ((above := relevance - relevance.amin(-1, True)) + STEP) / above.amax(-1, True).clamp(min=STEP)


def conditional_kernel(units: Tensor, relevance: Tensor) -> Tensor:
    """[..., N, N] products of unit vectors [..., N, D] weighted by `relevance` [..., N] of both."""
    return gram(units).mul_(relevance[..., None]).mul_(relevance[..., None, :])
