"""VTW's search for the layer from which on the next token does not depend on visual tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from uniprune.errors import UserError
from uniprune.pruning.calibration import Calibration, Found
from uniprune.pruning.fields import Count, Positive
from uniprune.pruning.functional import at_least_float32

FIRST = 5
"""The paper's first candidate."""


def divergences(logits_full: Tensor, logits_withdrawn: Tensor) -> Tensor:
    """[C] KL(withdrawn || full) of the next-token distributions of C candidates, mean over samples.

    Args:
        logits_full: [S, V] of the whole model at the last prompt position of S samples.
        logits_withdrawn: [S, C, V] with visual tokens withdrawn at each candidate layer; without S for one sample.
    """
    full = at_least_float32(logits_full).log_softmax(-1)
    withdrawn = at_least_float32(logits_withdrawn).reshape(len(full), -1, full.shape[-1]).log_softmax(-1)
    return (withdrawn.exp() * (withdrawn - full[:, None])).sum(-1).mean(0)


def earliest(divergence: Tensor, eta: float, first: int = FIRST) -> int | None:
    """Return the earliest layer from `first` on whose divergence [C] is at most `eta`, None if there is none."""
    enough = (divergence <= eta).nonzero()[:, 0]
    return first + int(enough[0]) if len(enough) else None


@dataclass(frozen=True, kw_only=True)
class LayerSearch(Calibration):
    """The paper's search for K: the earliest layer whose withdrawal leaves the next token's distribution unchanged.

    About twenty prompts are enough; each takes a forward per candidate.

    Args:
        eta: largest divergence, mean over prompts; the paper's are 0.003 (LLaVA-1.5-7B) and 0.0005 (13B).
        first: first candidate; by default the paper's 5, or the middle of a decoder of fewer than ten layers.
    """

    eta: Positive = 0.003
    first: Count | None = None
    decides: ClassVar[frozenset[str]] = frozenset({"eta"})

    @torch.no_grad()
    def observe(self, model: Any, inputs: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Return `divergence` [C] of the first new token, one per candidate, `layers` of the decoder, and `first`.

        Raises:
            UserError: no candidate is inside the decoder.
        """
        from uniprune.engine import prune  # loads transformers, which naming the method does not need

        from ..vtw import VTW  # imports this module

        layers = len(model.get_decoder().layers)
        first = min(FIRST, layers // 2) if self.first is None else self.first
        if first >= layers:
            raise UserError(f"first {first} is outside the model's decoder layers 1..{layers - 1}")
        rows = []
        for layer in range(first, layers):
            with prune(model, VTW(ratio=layer / layers)):
                rows.append(model(**inputs).logits[:, -1])
        divergence = divergences(model(**inputs).logits[:, -1], torch.stack(rows, dim=1))
        return {"divergence": divergence, "layers": torch.tensor(layers), "first": torch.tensor(first)}

    def result(self, seen: Sequence[Mapping[str, Tensor]]) -> Found:
        """Return K as a ratio, with the mean divergence at every candidate.

        Raises:
            UserError: the divergence of every candidate exceeds `eta`.
        """
        layers, first = int(seen[0]["layers"]), int(seen[0]["first"])
        mean = torch.stack([one["divergence"] for one in seen]).mean(0)
        at = {first + i: float(kl) for i, kl in enumerate(mean)}
        layer = earliest(mean, self.eta, first)
        if layer is None:
            best = min(at, key=at.__getitem__)
            raise UserError(
                f"no layer from {first} on can withdraw the visual tokens at a divergence of {self.eta:g}; the "
                f"smallest is {at[best]:.3g} at layer {best}: allow more with --search eta={1.01 * at[best]:.3g}"
            )
        summary = f"K = {layer} of {layers} layers: divergence {at[layer]:.3g}, at most {self.eta:g} was allowed"
        return Found(layer / layers, {}, summary, {"layer": layer, "divergence": at})
