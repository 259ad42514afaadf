"""VTW: withdraw all visual tokens from the deep layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uniprune.errors import UserError
from uniprune.pruner import IntraLLM, Stage
from uniprune.registry import register_method
from uniprune.selection import at_least_float32
from uniprune.view import View

LAYER = 16


@register_method("vtw", paper="arXiv 2405.05803")
@dataclass(frozen=True, kw_only=True)
class VTW(IntraLLM):
    """Withdraws all visual tokens before decoder layer K (Lin et al., AAAI 2025, arXiv 2405.05803).

    By then, it is argued, the text has absorbed them. K follows from the ratio, K = round(ratio x layers) and at least
    1, so the ratio is the average over layers; `search_k` finds K as the paper does.

    Differs from the paper in: nothing. Differs from the release in: text keeps its positions (its default too; its mode
    that renumbers is not offered, as decode steps would share one position id across layers), and its control that
    drops random positions of the whole sequence is left out. Cost: none, no score is computed.
    """

    layer: int = LAYER

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer != LAYER:
            raise UserError(
                f"the layer of {type(self).__name__} follows from its ratio, K = round(ratio x layers); leave out "
                f"layer {self.layer} and set ratio = K / layers"
            )

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """One stage that leaves nothing; none when K lies behind the last layer."""
        layer = max(1, math.floor(self.ratio * num_layers + 0.5))
        return (Stage(layer, 0.0, self),) if layer < num_layers else ()

    def select(self, view: View, keep: int) -> Tensor:
        """Nothing."""
        return torch.arange(keep)


def divergences(logits_full: Tensor, logits_withdrawn: Tensor) -> Tensor:
    """[C] KL(withdrawn || full) of the next-token distributions of C candidates, mean over samples.

    Args:
        logits_full: [S, V] of the whole model at the last prompt position of S samples.
        logits_withdrawn: [S, C, V] with visual tokens withdrawn at each candidate layer; without S for one sample.
    """
    full = at_least_float32(logits_full).log_softmax(-1)
    withdrawn = at_least_float32(logits_withdrawn).reshape(len(full), -1, full.shape[-1]).log_softmax(-1)
    return (withdrawn.exp() * (withdrawn - full[:, None])).sum(-1).mean(0)


def find_k(logits_full: Tensor, logits_withdrawn: Tensor, eta: float, first: int = 5) -> int | None:
    """The earliest layer whose divergence is at most `eta`, None if there is none; candidates are `first`, ….

    The paper's eta is 0.003 (LLaVA-1.5-7B) or 0.0005 (13B). Shapes as in `divergences`.
    """
    enough = (divergences(logits_full, logits_withdrawn) <= eta).nonzero()[:, 0]
    return first + int(enough[0]) if len(enough) else None


@torch.no_grad()
def search_k(model: Any, samples: Iterable[Mapping[str, Any]], eta: float = 0.003, first: int = 5) -> int | None:
    """`find_k` on `samples`, the model inputs of one prompt each; about twenty are enough. A forward per candidate."""
    from uniprune.engine import prune  # loads transformers, which naming the method does not need

    layers = len(model.get_decoder().layers)
    full, withdrawn = [], []
    for inputs in samples:
        full.append(model(**inputs).logits[:, -1])
        rows = []
        for layer in range(first, layers):
            with prune(model, VTW(ratio=layer / layers)):
                rows.append(model(**inputs).logits[:, -1])
        withdrawn.append(torch.stack(rows, dim=1))
    return find_k(torch.cat(full), torch.cat(withdrawn), eta, first)
