"""G-Prune: keep the tokens that collect the most information on a similarity graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from uniprune.pruning.base import PreLLM
from uniprune.pruning.fields import Cosine, Count, Positive
from uniprune.pruning.functional import LEAST_NORM, at_least_float32, gram, products, rows_at_a_time, top_k
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

FAINT, APART = 1e-6, -5000
"""As released, a logit below `FAINT` in size makes no neighbour, and tokens that are none get the logit `APART`: its
exponential is 0 in float64, too, and a zero vector, which has no neighbour at all, gives equal shares, not NaN."""


@register_method(
    "gprune",
    paper="arXiv 2501.02268",
    code="jytmelon/G-Prune",
    deviations=[
        "Paper: one graph per image in every family; the paper has one per grid of LLaVA-NeXT (`scope=grid`).",
        "Release: scores are float32, counts rounded, not floored. The row of norms is propagated: no matrix power.",
    ],
    releases={
        "test_releases_vit.test_gprune_in_half_precision_counts_too_few_neighbours": "In float16 a neighbour near the "
        "threshold has weight 0 and is not counted, so that other tokens stay.",
    },
)
@dataclass(frozen=True, kw_only=True)
class GPrune(PreLLM):
    """Information flow on the graph of similar projected tokens (Jiang et al., AAAI 2025, arXiv 2501.02268).

    Every token starts with its norm and passes it on to similar tokens a few times; what has arrived, divided by the
    number of neighbours, ranks the tokens, so that isolated ones beat members of a large background cluster.

    Cost: O(N^2 (D + iterations)).

    Args:
        similarity: cosine from which two tokens are neighbours.
        temperature: of the softmax over neighbours.
        iterations: how often information is passed on.
    """

    similarity: Cosine = 0.5
    temperature: Positive = 0.03
    iterations: Count = 5
    scale_invariant: ClassVar[bool] = True
    takes_gaps: ClassVar[bool] = True

    def select(self, view: View | ViewBatch, keep: int) -> Tensor:
        return top_k(graph_scores(view.tokens, self.similarity, self.temperature, self.iterations), keep)

    select_batch = select


def graph_scores(tokens: Tensor, similarity: float, temperature: float, iterations: int) -> Tensor:
    """[..., N] information that arrives at each of `tokens` [..., N, D], per neighbour."""
    x, neighbours = at_least_float32(tokens), []
    norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    flow = gram(x / norms.clamp(min=LEAST_NORM))
    for rows in flow.flatten(0, -2).split(rows_at_a_time(flow)):  # in place: from cosines to the shares passed on
        apart = rows < similarity
        if similarity < FAINT * temperature:
            apart.logical_or_(rows.abs() < FAINT * temperature)
        rows.div_(temperature).masked_fill_(apart, APART)
        torch.softmax(rows, -1, out=rows)
        neighbours.append(rows.count_nonzero(-1))
    information, back = norms.mT, flow.mT
    for _ in range(iterations):
        information = products(information, back)
    counts = neighbours[0] if len(neighbours) == 1 else torch.cat(neighbours)
    scores: Tensor = information[..., 0, :] / counts.view(tokens.shape[:-1])
    return scores
