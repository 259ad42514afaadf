"""The registered family of a model."""

from __future__ import annotations

from typing import Any

from uniprune.errors import UnsupportedError, UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.registry import MODELS


def unregistered(config: Any) -> str:
    """Explain that no adapter is registered for models of a configuration."""
    text_only = "" if hasattr(config, "vision_config") else " (it has no vision_config: a language model alone?)"
    return (
        f"unknown model family {config.model_type!r}{text_only}; the registered families are "
        f"{', '.join(MODELS.names())}"
    )


def find_adapter(model: Any) -> ModelAdapter:
    """Return the registered family's adapter of a loaded model; PEFT wrappers are unwrapped.

    Raises:
        UserError: it is no Hugging Face model, or nothing is registered under its `config.model_type`.
        UnsupportedError: it lacks parts that the family's models have, such as a tower of another kind.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind = getattr(getattr(inner, "config", None), "model_type", None)
    if kind is None:
        raise UserError(
            f"{type(model).__name__} has no config.model_type; pass a loaded Hugging Face vision-language model"
        )
    if kind not in MODELS.names():
        raise UserError(f"{unregistered(inner.config)}; a file registers another one (docs/add-a-model.md)")
    family: type[ModelAdapter] = MODELS.get(kind)
    try:
        adapter = family.of(inner)
        adapter.vision_attention(adapter.vision_blocks()[adapter.block_index(None)])
    except AttributeError as error:
        raise UnsupportedError(
            f"{type(inner).__name__} is no model that family {kind!r} can describe ({error}); it was tried with "
            + "; ".join(f"{part} {', '.join(kinds)}" for part, kinds in family.tried.items())
            + f", and this one has text model {inner.get_decoder().config.model_type}, tower "
            f"{getattr(getattr(inner.config, 'vision_config', None), 'model_type', 'unknown')}"
        ) from error
    return adapter
