"""Newer ViT-only methods: refusals, ties, and what releases do and papers do not mention."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.pruners import generate
from tests.helpers.tiny import build, inputs
from tests.methods.test_golden_vit import view_of
from uniprune.engine import prune
from uniprune.errors import UnsupportedError
from uniprune.methods.scope import SCOPE


def test_a_sum_of_heads_needs_a_class_token() -> None:
    for family in ("qwen2_5_vl", "qwen3_vl"):
        with (
            prune(build(family), SCOPE(ratio=0.5, combine="sum")),
            pytest.raises(UnsupportedError, match="no CLS token, so CLS attention does not exist"),
        ):
            generate(build(family), inputs(family), 1)


def test_scope_takes_duplicates_and_empty_tokens_last_and_covers_nothing_below_zero() -> None:
    features = torch.tensor([[1.0, 0], [1, 0], [0, 0], [0, 1], [-1, 0]])
    attention = torch.tensor([1.0, 2, 9, 1, 1])
    assert SCOPE().select(view_of(features, importance=attention), 5).tolist() == [1, 3, 4, 0, 2]
    assert SCOPE(alpha=0).select(view_of(features, importance=attention), 5).tolist() == [0, 3, 4, 1, 2]
