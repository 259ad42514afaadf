"""Windows of the attention that methods read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from uniprune.modeling.context import SLIDING, layer_kinds
from uniprune.pruning.base import Stage


def smallest_window(config: Any, stages: Iterable[Stage]) -> int | None:
    """Return the smallest window of the layers whose attention methods read, None if they all see everything."""
    kinds = layer_kinds(config)
    read = {stage.layer - 1 for stage in stages if stage.pruner.llm_attention}
    read |= {stage.layer for stage in stages if stage.pruner.upcoming_attention}
    return config.sliding_window if any(kinds[layer] == SLIDING for layer in read) else None
