"""Budgets of FastVID's frames, and what a segment becomes."""

from __future__ import annotations

import torch
from torch import Tensor

from uniprune.pruning.functional import complement, cosine_similarity, group_means, top_k

from ._segments import clusters

RELEASES = {
    "test_methods_merging.test_fastvid_hands_on_what_a_frame_cannot_hold": "What a frame cannot hold is lost "
    "(`counts=release`): 10 tokens instead of 30 where six frames are alike.",
}
NEIGHBOURS = 4  # whose distances make the density of a token
Plan = list[tuple[int, int, int]]
"""Frames of a segment; of each, how many of its most attended tokens stay, and how many more that take in others."""


def shared(total: int, parts: int) -> list[int]:
    """Return `parts` numbers that add up to `total`, equal but for the first ones, which are larger by one."""
    return [(total + parts - 1 - part) // parts for part in range(parts)]


def planned(last: list[int], size: int, budget: int, share: float, period: int) -> Plan:
    """Spread the budget of a segment over some of its frames; less of it where a frame cannot hold its part.

    Args:
        last: the frames, ascending; the last one takes in others, and every `period`-th before it.
        size: tokens of a frame.
        budget: tokens of the segment, at least 1.
        share: part of the budget that takes in others.
        period: see `last`.
    """
    context, count = max(int(budget * share), 1), len(last)
    salient, parts = shared(budget - context, count), shared(context, -(-count // period))
    if last == [0]:
        return [(0, salient[0], context)]
    own = [0 if number % period else min(parts[number // period], size // 2) for number in range(count)][::-1]
    return [(frame, min(most, size - more), more) for frame, most, more in zip(last, salient, own, strict=True)]


def compressed(
    x: Tensor, attention: Tensor, plan: Plan, budget: int, least: float, draws: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Return the places [k] of what stays of a segment among its L F tokens, and what it becomes [k, D].

    Args:
        x: [L, F, D] tokens.
        attention: [L, F] attention they receive.
        plan: see `planned`.
        budget: tokens to keep; the most attended of the segment are added where the plan has fewer.
        least: weight of a token that takes in others, at least.
        draws: see `clusters`.
    """
    size, tokens, scores = x.shape[1], x.flatten(0, 1), attention.flatten()
    salient, context = [], []
    for frame, most, more in plan:
        picked = top_k(attention[frame], most)
        rest = complement(size, picked)
        if more:
            centres, _ = clusters(x[frame, rest], more, NEIGHBOURS, draws)
            context.append(frame * size + rest[centres])
        salient.append(frame * size + picked)
    kept = torch.cat(salient + context)
    if len(kept) < budget:
        rest = complement(len(tokens), kept)
        salient.append(rest[top_k(scores[rest], budget - len(kept))])
    own = torch.cat(salient)
    merged = [taken_in(tokens, one, complement(len(tokens), torch.cat((own, one))), least) for one in context]
    return torch.cat((own, *context)), torch.cat((tokens[own], *merged))


def taken_in(tokens: Tensor, context: Tensor, others: Tensor, least: float) -> Tensor:
    """[k, D] `tokens` [N, D] at `context` [k], averaged with those of `others` [m] that are most like each."""
    owner = cosine_similarity(tokens[others], tokens[context]).argmax(-1)
    number = torch.nn.functional.one_hot(owner, len(context)).sum(0)
    weight = (1 / (number + 1).to(tokens)).clamp(min=least)[:, None]
    return weight * tokens[context] + (1 - weight) * group_means(tokens, owner, len(context), others)
