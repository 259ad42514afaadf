"""VTW: withdraw all visual tokens from the deep layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from uniprune.errors import UserError
from uniprune.pruning.base import IntraLLM, Stage
from uniprune.pruning.calibration import Calibration
from uniprune.pruning.fields import NonNegative
from uniprune.pruning.view import View
from uniprune.registry import register_method

from .calibration.vtw import LayerSearch

LAYER = 16
"""The middle of LLaVA-1.5-7B. It only orders the parts of a composition; K follows from the ratio."""


@register_method(
    "vtw",
    paper="arXiv 2405.05803",
    code="lzhxmu/VTW",
    deviations=[
        "Release: text keeps its positions (its default, too); its mode that renumbers is not offered, as decode "
        "steps would share one position id across layers.",
        "Release: its control that drops random positions of the whole sequence is left out.",
    ],
)
@dataclass(frozen=True, kw_only=True)
class VTW(IntraLLM):
    """Withdraws all visual tokens before decoder layer K (Lin et al., AAAI 2025, arXiv 2405.05803).

    By then, it is argued, the text has absorbed them. K follows from the ratio, K = round(ratio x layers) and at least
    1, so the ratio is the average over layers; `python run.py calibrate vtw` finds K as the paper does.

    Cost: none, no score is computed.
    """

    layer: NonNegative = LAYER
    calibration: ClassVar[type[Calibration]] = LayerSearch

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer != LAYER:
            raise UserError(
                f"the layer of {type(self).__name__} follows from its ratio, K = round(ratio x layers); leave out "
                f"layer {self.layer} and set ratio = K / layers"
            )

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """One stage that leaves nothing; none when K is past the last layer."""
        layer = max(1, math.floor(self.ratio * num_layers + 0.5))
        return (Stage(layer, 0.0, self),) if layer < num_layers else ()

    def select(self, view: View, keep: int) -> Tensor:
        """Nothing: `keep` is 0."""
        return torch.arange(keep)
