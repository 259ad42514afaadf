"""Lets the place in the batch decide."""

from dataclasses import dataclass

import torch

from uniprune.pruning.base import PreLLM
from uniprune.registry import register_method


@register_method("faulty-batch-row")
@dataclass(frozen=True, kw_only=True)
class BatchRow(PreLLM):
    """Evenly spaced tokens, shifted by the row of the batch."""

    def select(self, view, keep):
        count = len(view.tokens)
        return (torch.arange(keep) * count // keep + view.attention._row) % count
