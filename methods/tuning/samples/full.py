"""All samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from uniprune.tuning.strategy import SampleStrategy, SampleView, register_samples


@register_samples("full")
@dataclass(frozen=True, kw_only=True)
class Full(SampleStrategy):
    """Keep every sample at every ratio: ordinary fine-tuning."""

    prunes: ClassVar[bool] = False

    def select(self, view: SampleView, keep: int) -> Tensor:
        return torch.arange(keep)
