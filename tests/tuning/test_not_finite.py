"""Losses, entropies and metrics that are NaN or infinite: what is ranked, stored, refused and counted."""

from __future__ import annotations

import pytest
import torch

from uniprune.errors import PruningError, UserError
from uniprune.tuning.accuracy import exact_matches
from uniprune.tuning.harness import numeric_metrics
from uniprune.tuning.instruction_data import Sample
from uniprune.tuning.pruning import Candidate, Pair, choose_tokens, plane_axes, stored_axes
from uniprune.tuning.scoring import Scores
from uniprune.tuning.strategy import SAMPLES, TOKENS

NAN = float("nan")


def test_an_axis_without_a_finite_value_is_null() -> None:
    nll = torch.tensor([[1.0, 2.0], [NAN, 1.0], [torch.inf, 1.0], [800.0, 800.0]])
    batch = [Candidate(i, 4, 2, values, values) for i, values in enumerate(nll)]
    axes = plane_axes(batch)
    assert axes.isfinite().all(), "the plane ranks them as the largest"
    assert stored_axes(axes) == [[4.4817, None, None, None], [1.5, None, None, None]]


def test_a_sample_without_a_loss_stays_whole_and_other_measurements_must_be_finite() -> None:
    pair = Pair(SAMPLES.get("full")(), TOKENS.get("rho-1")(), 1.0, 0.5)
    broken, sound = torch.tensor([1.0, NAN, 0.0, 2.0]), torch.arange(4.0)
    generator = torch.Generator()
    assert choose_tokens(pair, 4, {"nll": broken, "reference": sound}, generator) == [0, 1, 2, 3]
    with pytest.raises(PruningError, match="cannot rank tokens: NaN or infinity in their reference"):
        choose_tokens(pair, 4, {"nll": sound, "reference": broken}, generator)
    assert len(choose_tokens(pair, 4, {"nll": sound, "reference": sound}, generator)) == 2


class BrokenScorer:
    """A scorer whose model predicts NaN for one sample of two."""

    def score(self, samples: list[Sample]) -> list[Scores]:
        values = torch.tensor([[1.0, 1.0], [NAN, 1.0]])
        return [Scores(nll, nll, torch.zeros(2, dtype=torch.bool)) for nll in values]


def test_a_model_that_predicts_nothing_has_no_accuracy() -> None:
    samples = [Sample(i, torch.arange(4), torch.tensor([2, 3]), "") for i in range(2)]
    with pytest.raises(UserError, match="predicts nothing for 1 of 2 held-out samples"):
        exact_matches(BrokenScorer(), samples)  # type: ignore[arg-type]  # as much of a scorer as is used


def test_a_metric_that_is_not_finite_has_no_value() -> None:
    results = {"t": {"acc,none": 0.5, "bleu,none": NAN, "ppl": float("inf"), "alias": "t", "sample_len": 3}}
    assert numeric_metrics(results, "t") == {"acc": 0.5, "bleu": None, "ppl": None}
