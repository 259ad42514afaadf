"""Held-out accuracy of a model, by exact match."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from uniprune.errors import UserError
from uniprune.results.measurements import Strict
from uniprune.tuning.instruction_data import Sample
from uniprune.tuning.scoring import Scorer


class KindScore(Strict):
    """Exact matches among the held-out samples of one kind."""

    items: int
    """Number of samples."""
    right: int
    """Samples whose greedy prediction is the expected answer, token by token."""
    tokens: float
    """Share of answer tokens that are the likeliest ones after the expected beginning."""


def exact_matches(scorer: Scorer, test: Sequence[Sample]) -> dict[str, KindScore]:
    """Return held-out accuracy by kind, "" for all samples; empty without samples.

    Greedy decoding predicts exactly the expected answer if every token of it is the likeliest after those before it, so
    one scoring forward suffices, without generating.

    Raises:
        UserError: the model's log-likelihoods are NaN: it predicts nothing that could be right or wrong.
    """
    if not test:
        return {}
    scores = scorer.score(test)
    if broken := sum(bool(score.nll.isnan().any()) for score in scores):
        raise UserError(
            f"the model predicts nothing for {broken} of {len(test)} held-out samples: its log-likelihoods are NaN; "
            "use another precision (score_dtype: float32) or a smaller learning rate"
        )
    accuracy = {}
    for kind in sorted({sample.kind for sample in test} | {""}):
        right = [score.right for sample, score in zip(test, scores, strict=True) if kind in ("", sample.kind)]
        matches = sum(bool(tokens.all()) for tokens in right)
        accuracy[kind] = KindScore(items=len(right), right=matches, tokens=float(torch.cat(right).double().mean()))
    return accuracy
