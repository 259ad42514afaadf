"""A method that stops in the middle of a run until a file appears, so that something can happen meanwhile."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from uniprune.pruning.base import PreLLM
from uniprune.registry import register_method


@register_method("gated")
@dataclass(frozen=True, kw_only=True)
class Gated(PreLLM):
    """The first tokens; on some rows (of the small benchmark: 3 and 11) not before `gate` exists."""

    gate: str

    def select(self, view, keep):
        waits = torch.rand(1, generator=view.generator) > 0.9
        while waits and not Path(self.gate).exists():
            time.sleep(0.02)
        return torch.arange(keep)
