"""The key "uniprune" of a checkpoint's configuration: method, keep ratio, positions and fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from uniprune.errors import UnsupportedError, UserError
from uniprune.pruning.base import Pruner
from uniprune.pruning.load import load_method
from uniprune.pruning.serving import servable
from uniprune.registry import METHODS

KEY = "uniprune"
ONE_AXIS, THREE_AXES = ("compact", "original"), ("original", "vllm")
"""Policies of position ids for models whose tokens have one, or three; the first one is the default."""


def method_of(config: Any) -> Pruner:
    """Return the method that a configuration names.

    Args:
        config: of transformers, with `--hf-overrides` applied.

    Raises:
        UserError: nothing, or something impossible, is named.
        UnsupportedError: no serving engine can run the method, or not with these positions on this model.
    """
    given = getattr(config, KEY, None)
    if not isinstance(given, Mapping) or "method" not in given:
        raise UserError(
            f"--hf-overrides has {KEY}={given!r}; expected a method, as in "
            f'{{"{KEY}": {{"method": "divprune", "ratio": 0.111}}}}'
        )
    text = config.get_text_config()
    policies = THREE_AXES if has_axes(config) else ONE_AXIS
    fields = {"positions": policies[0], **given}
    name = fields.pop("method")
    if (published := METHODS.published().get(name)) is not None:
        if "+" in published.means:
            raise UnsupportedError(f"method {name!r} cannot be served: it is several methods, {published.means}")
        name, fields = published.means, {**published.settings, **fields}
    pruner = load_method(name, **fields)
    answer = servable(pruner, text.num_hidden_layers)
    if not answer.yes:
        raise UnsupportedError(f"method {name!r} cannot be served: {answer.why}")
    if pruner.positions not in policies:
        raise UnsupportedError(
            f"positions={pruner.positions!r} cannot be served on {config.model_type}; use one of {', '.join(policies)}"
        )
    return pruner


def has_axes(config: Any) -> bool:
    """Return whether a checkpoint's tokens have positions of three axes by nature: M-RoPE."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    return "mrope_section" in rope and not rope.get(KEY)
