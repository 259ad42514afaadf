"""Agreement and first-token divergence: the number, its bound, and what runs store for it."""

from __future__ import annotations

from math import log

import pytest
import torch

from uniprune.evaluation.dataset import Dataset
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.processing import RequestEncoder, collate
from uniprune.evaluation.runner import Runner
from uniprune.modeling.loading import LoadedModel
from uniprune.results.fidelity import compare_predictions, divergence, first_tokens
from uniprune.results.predictions import FirstToken

LOGITS = torch.randn(2, 500, generator=torch.Generator().manual_seed(0)) * 3


def exact(one: torch.Tensor, other: torch.Tensor) -> float:
    p, q = one.double().log_softmax(-1), other.double().log_softmax(-1)
    return float((p.exp() * (p - q)).sum())


def test_what_is_stored_is_the_distribution_with_a_rest() -> None:
    [first, _] = first_tokens(LOGITS)
    probabilities = LOGITS[0].double().softmax(-1)
    assert first.ids == probabilities.topk(20).indices.tolist()
    assert first.logs == pytest.approx(probabilities.topk(20).values.log().tolist(), abs=1e-4)
    assert first.rest == pytest.approx(1 - float(probabilities.topk(20).values.sum()), abs=1e-5)


def test_over_all_tokens_it_is_the_divergence_and_over_few_a_lower_bound() -> None:
    generator = torch.Generator().manual_seed(1)
    for scale in (0.1, 1.0, 3.0):
        moved = LOGITS + scale * torch.randn(LOGITS.shape, generator=generator)
        full = exact(LOGITS[0], moved[0])
        values = [
            divergence(first_tokens(LOGITS, count)[0], first_tokens(moved, count)[0]) for count in (500, 100, 20, 1)
        ]
        assert values[0] == pytest.approx(full, rel=0.01, abs=1e-4)
        assert all(0 <= value <= full + 1e-4 for value in values[1:])
        assert values[2] > 0


def test_tokens_that_only_one_side_stored_are_one_bucket_with_all_others() -> None:
    """Half of the probability here: without the bucket the divergence would be far larger."""
    one = FirstToken(ids=[1, 2], logs=[log(0.5), log(0.3)], rest=0.2)
    other = FirstToken(ids=[1, 3], logs=[log(0.25), log(0.35)], rest=0.4)
    assert divergence(one, other) == pytest.approx(0.5 * log(0.5 / 0.25) + 0.5 * log(0.5 / 0.75))
    assert divergence(other, one) == pytest.approx(0.25 * log(0.25 / 0.5) + 0.75 * log(0.75 / 0.5))
    sure = FirstToken(ids=[1], logs=[0.0], rest=0.0)
    assert divergence(one, sure) == pytest.approx(0.5 * log(0.5) + 0.5 * log(0.5 / 1e-6))


def test_equal_distributions_have_no_divergence_and_opposite_ones_a_finite_one() -> None:
    [one, other] = first_tokens(LOGITS)
    assert divergence(one, one) == pytest.approx(0, abs=1e-6)
    sure = torch.tensor([[100.0, 0.0], [0.0, 100.0]])
    assert divergence(*first_tokens(sure, 2)) == pytest.approx(100, rel=1e-3)
    assert divergence(*first_tokens(sure, 1)) == 0  # nothing stored by both: the bound knows nothing
    assert divergence(one, other) != divergence(other, one)


def test_rows_are_compared_that_both_answered() -> None:
    [one, other] = first_tokens(LOGITS)
    reference = {"a": ("yes", one), "b": ("no", one), "c": ("no", one)}
    found = compare_predictions(reference, {"a": ("yes", one), "b": ("yes", other)})
    assert found is not None
    assert (found.rows, found.same) == (["a", "b"], [1, 0])
    assert found.kl == pytest.approx([0, divergence(one, other)], abs=1e-6)
    without = compare_predictions(reference, {"a": ("yes", one), "b": ("yes", None)})
    assert without is not None
    assert without.kl is None  # rows answered by an earlier version
    assert compare_predictions(reference, {"d": ("yes", one)}) is None


def test_runs_store_the_distribution_behind_the_prompt(loaded: LoadedModel, small: Dataset) -> None:
    """In a batch too: each row's own, and that of its own first token."""
    with Runner(loaded, MethodSpec("none").pruner(), batch_size=3) as answerer:
        answers = [answer for batch in answerer.predictions(small.requests(3)) for answer in batch]
    encoder = RequestEncoder(loaded.processor)
    for answer, request in zip(sorted(answers, key=lambda answer: answer.index), small.requests(3), strict=True):
        inputs = collate([encoder.encode(request)], 0)
        with torch.inference_mode():
            [expected] = first_tokens(loaded.model(**inputs).logits[:, -1])
        assert answer.first is not None
        assert answer.first.ids[:5] == expected.ids[:5]
        assert answer.first.logs == pytest.approx(expected.logs, abs=1e-3)
