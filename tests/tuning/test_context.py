"""Samples longer than the model's context are named once, with the remedy."""

from __future__ import annotations

import torch

from uniprune.tuning.instruction_data import Sample
from uniprune.tuning.tuning_data import too_long


def test_samples_beyond_the_context_are_counted() -> None:
    samples = [Sample(i, torch.arange(length), torch.arange(1, length)) for i, length in enumerate((4, 9, 8, 12))]
    [line] = too_long(samples, 8)
    assert line == (
        "2 of 4 samples, with up to 12 tokens, exceed the model's context of 8 positions (kept; the first is row 1); "
        "cutoff: 8 would cut them"
    )
    assert too_long(samples, 12) == too_long(samples, None) == []
