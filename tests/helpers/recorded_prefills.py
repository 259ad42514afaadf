"""Prefills of tiny models under one method of each kind, recorded to be run again as graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers.tiny import inputs
from uniprune.engine import PromptInfo, prune
from uniprune.latency.prompts import Prompts
from uniprune.latency.recorded_prefill import Recorder, Segments
from uniprune.modeling.families import find_adapter
from uniprune.pruning.base import Pruner
from uniprune.registry import METHODS as REGISTERED

DIVPRUNE, FASTV = REGISTERED.get("divprune")(ratio=0.5), REGISTERED.get("fastv")(ratio=0.5)
METHODS = {"none": REGISTERED.get("none")(), "pre": DIVPRUNE, "intra": FASTV, "hybrid": DIVPRUNE >> FASTV}
"""No method, one before the decoder, one inside it, and both."""


def prompts(family: str) -> Prompts:
    """Two equal prompts, as those of `bench`, with other pixels."""
    one, other = inputs(family), inputs(family, seed=1)
    batch = {name: torch.cat((x, other[name] if x.is_floating_point() else x)) for name, x in one.items()}
    return Prompts(batch, (PromptInfo("0"), PromptInfo("1")))


def recorded(model: Any, pruner: Pruner, batch: Prompts) -> tuple[Segments, Any, Tensor]:
    """Record a prefill; also return its cache, and what the output head returned."""
    heads: list[Tensor] = []
    handle = model.get_output_embeddings().register_forward_hook(lambda module, args, output: heads.append(output))
    try:
        with prune(model, pruner) as session, Recorder(find_adapter(model)) as recorder:
            session.samples = batch.samples
            output = model.generate(**batch.inputs, max_new_tokens=1, do_sample=False, return_dict_in_generate=True)
    finally:
        handle.remove()
    segments = recorder.segments(kept.layer for kept in session.reports[-1].kept)
    return segments, output.past_key_values, heads[-1]


class Peeking(nn.Module):
    """An MLP that reads a value of its input on the host, or takes the rows above one."""

    def __init__(self, mlp: nn.Module, mask: bool = False) -> None:
        super().__init__()
        self.mlp, self.mask = mlp, mask

    def forward(self, hidden: Tensor) -> Tensor:
        size = len(hidden[hidden > 0]) if self.mask else hidden.amax().item()
        result: Tensor = self.mlp(hidden) * (1 if size else 0)
        return result
