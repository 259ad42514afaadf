"""Positions of un-pruned prompts in reports: those that the decoder received, in padded batches and alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.tiny import FAMILIES, build, small
from uniprune.engine import prune
from uniprune.modeling.families import find_adapter
from uniprune.modeling.greedy import Greedy
from uniprune.pruning.base import Pruner
from uniprune.registry import METHODS

PRUNERS: dict[str, dict[str, Any]] = {
    "none": {},
    "divprune": {"ratio": 0.25},
    "compact divprune": {"ratio": 0.25, "positions": "compact"},
}
CASES = [(family, name) for family in FAMILIES for name in PRUNERS if (family[:4], name[:7]) != ("qwen", "compact")]
"""M-RoPE has no compact positions."""


@pytest.mark.parametrize(("family", "method"), CASES)
def test_reports_give_the_positions_of_the_whole_prompt(family: str, method: str) -> None:
    model, tiny, generator = build(family), small(family), torch.Generator().manual_seed(0)
    prompts = [
        tiny.prompt(generator, images=[(4, 4)]),
        tiny.prompt(generator, images=[(4, 4)] * 2, before=9),
        tiny.prompt(generator),
    ]
    received: list[Tensor] = []

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        received.append(kwargs["position_ids"])

    pruner: Pruner = METHODS.get(method.split()[-1])(**PRUNERS[method])
    for batch in (prompts, prompts[:1], prompts[2:]):
        received.clear()
        handle = find_adapter(model).decoder.register_forward_pre_hook(note, with_kwargs=True)
        try:
            with prune(model, pruner) as session:
                Greedy().generate(model, tiny.batch(batch), 1)
        finally:
            handle.remove()
        axes = received[0][-3:] if received[0].dim() == 3 else received[0][None]  # the first of four counts tokens
        highest = axes.amax((0, 2)) + 1
        assert [row.positions for row in session.reports[0].rows] == highest.tolist()
        assert highest.max() <= max(len(prompt.ids) for prompt in batch)
    assert session.reports[0].rows[0].positions == len(prompts[2].ids)
