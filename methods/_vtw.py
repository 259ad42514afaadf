"""VTW's search for the layer from which on visual tokens are not missed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from uniprune.calibration import Found
from uniprune.checks import check_count, check_positive
from uniprune.errors import UserError
from uniprune.pruner import IntraLLM, Stage
from uniprune.selection import at_least_float32
from uniprune.view import View

FIRST = 5


@dataclass(frozen=True, kw_only=True)
class Withdrawal(IntraLLM):
    """Withdraws all visual tokens before decoder layer `layer`."""

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """One stage that leaves nothing; none when the layer lies behind the last one."""
        return (Stage(self.layer, 0.0, self),) if self.layer < num_layers else ()

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


@dataclass
class LayerSearch:
    """The paper's search for K: the earliest layer whose withdrawal leaves the next token's distribution as it is.

    About twenty prompts are enough; each takes a forward per candidate.

    Args:
        eta: largest divergence, mean over prompts; the paper's are 0.003 (LLaVA-1.5-7B) and 0.0005 (13B).
        first: first candidate; by default the paper's 5, or the middle of a decoder of fewer than ten layers.
    """

    eta: float = 0.003
    first: int | None = None
    _full: list[Tensor] = field(init=False, default_factory=list)
    _withdrawn: list[Tensor] = field(init=False, default_factory=list)
    _layers: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        check_positive("eta", self.eta)
        check_count("first", 1 if self.first is None else self.first)

    @torch.no_grad()
    def observe(self, model: Any, inputs: Mapping[str, Any]) -> None:
        """Logits of the last prompt token, whole and with visual tokens withdrawn at every candidate layer.

        Raises:
            UserError: no candidate lies inside the decoder.
        """
        from uniprune.engine import prune  # loads transformers, which naming the method does not need

        layers = self._layers = len(model.get_decoder().layers)
        if self._start >= layers:
            raise UserError(f"first {self._start} is outside the model's decoder layers 1..{layers - 1}")
        rows = []
        for layer in range(self._start, layers):
            with prune(model, Withdrawal(layer=layer)):
                rows.append(model(**inputs).logits[:, -1])
        self._full.append(model(**inputs).logits[:, -1])
        self._withdrawn.append(torch.stack(rows, dim=1))

    def result(self) -> Found:
        """K as a ratio, with the divergence at every candidate. Raises UserError when all of them exceed `eta`."""
        full, withdrawn = torch.cat(self._full), torch.cat(self._withdrawn)
        at = {self._start + i: float(kl) for i, kl in enumerate(divergences(full, withdrawn))}
        layer = find_k(full, withdrawn, self.eta, self._start)
        if layer is None:
            best = min(at, key=at.__getitem__)
            raise UserError(
                f"no layer from {self._start} on can withdraw the visual tokens at a divergence of {self.eta:g}; the "
                f"smallest is {at[best]:.3g} at layer {best}: allow more with --search eta={1.01 * at[best]:.3g}"
            )
        summary = f"K = {layer} of {self._layers} layers: divergence {at[layer]:.3g}, at most {self.eta:g} was allowed"
        return Found(layer / self._layers, {}, summary, {"layer": layer, "divergence": at})

    @property
    def _start(self) -> int:
        return min(FIRST, self._layers // 2) if self.first is None else self.first
