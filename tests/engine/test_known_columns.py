"""Columns and masks that are made in few operations equal those that are made in general."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache, LlamaConfig
from transformers.masking_utils import create_causal_mask

from tests.helpers.tiny import build, inputs
from uniprune.engine import PrefillReport, PromptInfo, prune
from uniprune.engine.known_columns import KnownColumns
from uniprune.engine.layer_kinds import attention_mask
from uniprune.methods.divprune import DivPrune
from uniprune.methods.pyramiddrop import PyramidDrop
from uniprune.modeling.context import FULL
from uniprune.pruning.base import Pruner


def prefill(family: str, pruner: Pruner, copies: int) -> tuple[torch.Tensor, PrefillReport]:
    model, x = build(family), inputs(family, (1, 2))
    with prune(model, pruner) as session, torch.no_grad():
        session.samples = tuple(PromptInfo(str(i), torch.tensor([7, 8, 9])) for i in range(2))
        tokens = model.generate(**x, max_new_tokens=3, do_sample=False, num_beams=copies)
    return tokens, session.reports[0]


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize(
    "pruner",
    [DivPrune(ratio=0.5), DivPrune(ratio=0.3, order="release"), PyramidDrop(ratio=0.5)],
    ids=["one", "moved", "three"],
)
def test_known_columns_are_those_that_are_found(
    monkeypatch: pytest.MonkeyPatch, family: str, pruner: Pruner, copies: int
) -> None:
    """Rows of one and of two images, so that there is padding and a row of two groups."""
    known, made = KnownColumns.of.__func__, []  # type: ignore[attr-defined]

    def noted(cls: type[Any], *args: Any) -> Any:
        made.append(known(cls, *args))
        return made[-1]

    monkeypatch.setattr(KnownColumns, "of", classmethod(noted))
    tokens, report = prefill(family, pruner, copies)
    assert made[0] is not None
    assert made[1:] == [None] * (len(made) - 1)
    monkeypatch.setattr(KnownColumns, "of", classmethod(lambda *_: None))
    expected, other = prefill(family, pruner, copies)
    assert torch.equal(tokens, expected)
    for mine, theirs in zip(report.kept, other.kept, strict=True):
        assert (mine.index == theirs.index).all()
        assert (mine.valid == theirs.valid).all()
        assert (mine.lengths, mine.width) == (theirs.lengths, theirs.width)


@pytest.mark.parametrize("past", [None, 0, 4], ids=["no cache", "an empty cache", "a cache of four tokens"])
@pytest.mark.parametrize("count", [1, 5])
def test_simple_masks_are_those_of_transformers(past: int | None, count: int) -> None:
    config = LlamaConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1)
    config._attn_implementation = "sdpa"
    cache = None if past is None else DynamicCache(config=config)
    if past:
        assert cache is not None
        cache.update(torch.ones(2, 1, past, 8), torch.ones(2, 1, past, 8), 0)
    hidden, valid = torch.zeros(2, count, 8), torch.ones(2, count + (past or 0), dtype=torch.bool)
    valid[0, :1] = count + (past or 0) == 1
    found = attention_mask(config, FULL, 0, hidden, valid, cache, lambda: torch.empty(0), 0)
    expected = create_causal_mask(
        config=config, inputs_embeds=hidden, attention_mask=valid, past_key_values=cache, position_ids=None, layer_idx=0
    )
    assert torch.equal(found, valid[:, None, None] if expected is None else expected)
