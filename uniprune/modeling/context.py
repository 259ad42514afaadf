"""Facts about a language model in its configuration: context length, rotary positions, kinds of layers, reused keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STATED = {"default", "mrope", "llama3", "longrope", "su"}
"""Kinds of rotary positions for which `max_position_embeddings` is the whole context."""
STRETCHED = {"linear", "dynamic", "yarn", "proportional"}
"""Kinds that stretch an original context by `factor`; configurations may state either length."""
FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
"""The kinds of `layer_types` in Hugging Face configurations that the engine knows.

Linear attention has no keys: it passes one token after the other through a state, so a shorter sequence is enough.
"""


def context_length(config: Any) -> int | None:
    """Return the number of positions that a decoder was made for; None if its configuration does not determine it.

    Where rotary scaling stretches an original context, the longer of the two readings is taken: the stated length, or
    the original one times the factor. A decoder whose layers have rotary positions of several kinds has the shortest
    of their contexts.

    Args:
        config: configuration of the decoder itself, not of the model around it.
    """
    stated = getattr(config, "max_position_embeddings", None)
    if not stated:
        return None
    lengths = [_length(int(stated), kind) for kind in rotary_positions(config)]
    known = [length for length in lengths if length is not None]
    return min(known) if len(known) == len(lengths) else None


def rotary_positions(config: Any) -> list[Mapping[str, Any]]:
    """Return the parameters of a decoder's rotary positions: one mapping, or one for each kind of its layers."""
    rotary = getattr(config, "rope_parameters", None) or {}
    return [kind for kind in rotary.values() if isinstance(kind, Mapping)] or [rotary]


def rotary_kind(rotary: Mapping[str, Any]) -> str:
    """Return the kind of rotary positions, "default" if their parameters have none."""
    return str(rotary.get("rope_type", rotary.get("type", "default")))


def reusing_layers(config: Any) -> range:
    """Return the layers of a decoder that reuse the keys of earlier ones, the last of all; in most decoders none."""
    count: int = config.num_hidden_layers
    return range(count - (getattr(config, "num_kv_shared_layers", None) or 0), count)


def layer_kinds(config: Any) -> tuple[str, ...]:
    """Return the kind of every layer of a decoder; without `layer_types`, `sliding_window` holds for all."""
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        kinds = [FULL if getattr(config, "sliding_window", None) is None else SLIDING] * config.num_hidden_layers
    return tuple(kinds)


def _length(stated: int, rotary: Mapping[str, Any]) -> int | None:
    """Return the context of one kind of rotary positions; None for an unknown kind."""
    kind = rotary_kind(rotary)
    if kind in STATED:
        return stated
    if kind not in STRETCHED:
        return None
    original = rotary.get("original_max_position_embeddings") or stated
    return max(stated, int(original * (rotary.get("factor") or 1)))
