"""Says that it chooses by chance, and does not."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from uniprune.pruning.base import PreLLM
from uniprune.registry import register_method


@register_method("faulty-claims-random")
@dataclass(frozen=True, kw_only=True)
class ClaimsRandom(PreLLM):
    """The first tokens."""

    random: ClassVar[bool] = True

    def select(self, view, keep):
        return torch.arange(keep)
