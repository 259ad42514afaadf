"""A method that takes its time, so that a run can be interrupted in the middle."""

import time
from dataclasses import dataclass

import torch

from uniprune.pruning.base import PreLLM
from uniprune.registry import register_method


@register_method("slow")
@dataclass(frozen=True, kw_only=True)
class Slow(PreLLM):
    """The first tokens, after a while."""

    seconds: float = 0.0

    def select(self, view: object, keep: int) -> torch.Tensor:
        time.sleep(self.seconds)
        return torch.arange(keep)
