"""PriorTR's score of a question against a null token, and what its release does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from uniprune.errors import UserError
from uniprune.pruning.functional import at_least_float32, top_k

Rows = Literal["llava", "internvl", "qwen"]
Query = Literal["question", "last"]
Heads = Literal["mean", "max"]

SMALL = 1e-10
"""Added to shares of attention, as released."""
TOO_SHORT = "PriorTR needs a question after a null token; {} tokens follow the image: put the question after it"
RELEASES = {
    "test_releases_llm.test_priortr_compares_the_mean_of_the_question": "No null token is inserted: the first token "
    "after the image is taken for one. Compared with it is by default not the last row (`query=last`) but the mean of "
    "all after the image, its own among them.",
    "test_releases_llm.test_the_rows_of_priortrs_copies_choose_differently": "Its five copies take different rows, and "
    "keep other tokens: LLaVA's, InternVL's (`rows=internvl`), and one for Qwen2-VL, Qwen3-VL and Video-LLaVA "
    "(`rows=qwen`).",
    "test_golden_priortr.test_priortr_needs_a_question_after_the_null_token": "Where no text follows the null token "
    "all scores are 0, and the choice is arbitrary.",
}


def surplus(each: Sequence[Tensor], rows: Rows, query: Query, heads: Heads) -> Tensor:
    """[P, N] scores by the attention [H, F, N] of P prompts from the F text tokens after the image.

    Raises:
        UserError: no question follows the null token of a prompt.
    """
    null = int(rows == "internvl")
    short = min(attention.shape[1] for attention in each)
    last = rows == "qwen" and query == "question"
    if short - last < null + 2:
        raise UserError(TOO_SHORT.format(short))
    prior, asked = [], []
    for attention in map(at_least_float32, each):
        prior.append(attention[:, null])
        asked.append(attention[:, : attention.shape[1] - last].mean(1) if query == "question" else attention[:, -1])
    p, q = over_image(torch.stack(asked), heads), over_image(torch.stack(prior), heads)
    return p * ((p + SMALL) / (q + SMALL)).log()


def over_image(attention: Tensor, heads: Heads) -> Tensor:
    """[P, N] attention [P, H, N] as shares of the image."""
    total = attention.mean(1) if heads == "mean" else attention.amax(1)
    return total / (total.sum(-1, keepdim=True) + SMALL)


def best(scores: Tensor, keep: int, threshold: float | None) -> Tensor:
    """[P, k] the best `keep` by scores [P, N]; with a threshold, of one prompt, those above it, at least one."""
    if threshold is not None:
        keep = max(1, int((scores > threshold).sum()))
    return top_k(scores, keep)
