"""From keep ratios to token counts: the only place where budgets are computed and rounded."""

from __future__ import annotations

import math

from uniprune.errors import UserError


def check_ratio(ratio: float) -> float:
    """The keep ratio itself when it lies in (0, 1]. Raises UserError otherwise (NaN included)."""
    if not 0.0 < ratio <= 1.0:
        raise UserError(f"keep ratio {ratio!r} is outside (0, 1]; 0.111 keeps one visual token in nine, 1 keeps all")
    return float(ratio)


def keep_count(tokens: int, ratio: float) -> int:
    """How many of `tokens` visual tokens a keep ratio leaves: round half up, at least one, at most all.

    576 tokens at 0.111, 0.222, 0.333 give 64, 128, 192; 144 give 16, 32, 48.
    """
    return min(tokens, max(1, math.floor(tokens * ratio + 0.5))) if tokens else 0


def site_ratio(average: float, layer: int, num_layers: int) -> float:
    """The keep ratio to use at decoder layer `layer` so that the average over all layers is `average`.

    Layers before `layer` see every visual token, so the average is (K + (L - K) r) / L. With 11.1 % on 28 layers,
    pruning at K = 2 must keep 4.3 %.

    Raises:
        UserError: the layers before `layer` alone already exceed the average.
    """
    check_ratio(average)
    rest = (average * num_layers - layer) / (num_layers - layer)
    if rest <= 0:
        raise UserError(
            f"an average keep ratio of {average:g} over {num_layers} layers cannot be reached by pruning at layer "
            f"{layer}: the layers before it already use {layer / num_layers:.3f}; prune earlier or keep more"
        )
    return min(1.0, rest)
