"""What cannot give right results is refused here, by name, before anything runs."""

from __future__ import annotations

from typing import Any

from uniprune.errors import UnsupportedError, UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.pruning.base import Pruner, Stage


def checked_stages(family: ModelAdapter, pruner: Pruner) -> dict[int, Stage]:
    """The pruner's stages by layer.

    Raises:
        UserError: a stage lies outside the decoder, layers repeat, or a vision layer does not exist.
        UnsupportedError: the model or the combination cannot give right results.
    """
    count = len(family.layers)
    stages = pruner.schedule(count)
    layers = [stage.layer for stage in stages]
    name = type(pruner).__name__
    if any(not 0 <= layer < count for layer in layers):
        raise UserError(f"{name} prunes at layers {layers}, but the model's decoder layers are 0..{count - 1}")
    if layers != sorted(set(layers)):
        raise UserError(f"{name} prunes at layers {layers}; they must increase")
    if any(stage.layer == 0 and stage.pruner.llm_attention for stage in stages):
        raise UnsupportedError(f"{name} ranks by LLM attention, which does not exist before layer 0; use layer >= 1")
    depth = len(family.vision_blocks())
    beyond = [layer for layer in pruner.vision_layers if layer is not None and not -depth <= layer < depth]
    if beyond:
        raise UserError(f"{name} looks at vision layers {beyond}, but the tower's layers are {-depth}..{depth - 1}")
    _check_decoder(family)
    _check_positions(family, pruner, layers)
    return {stage.layer: stage for stage in stages}


def _check_decoder(family: ModelAdapter) -> None:
    config = family.decoder.config
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds and getattr(config, "sliding_window", None) is not None:
        kinds = {"sliding_attention"}
    if kinds - {"full_attention"}:
        raise UnsupportedError(
            f"the decoder has {', '.join(sorted(kinds))} layers; only decoders with full attention in every layer are "
            "supported, because a window counted over pruned tokens would cover more of the prompt"
        )
    if getattr(getattr(family.model.config, "vision_config", None), "deepstack_visual_indexes", None):
        raise UnsupportedError(
            "the model adds deepstack visual features inside its decoder layers, indexed by un-pruned positions; "
            "such decoders are not supported"
        )
    if family.is_compiled():
        raise UnsupportedError(
            "the model was wrapped by torch.compile, which ignores hooks added later; pass the un-compiled model"
        )


def _check_positions(family: ModelAdapter, pruner: Pruner, layers: list[int]) -> None:
    if pruner.positions != "compact":
        return
    rope = getattr(family.decoder.config, "rope_parameters", None) or {}
    if "mrope_section" in rope:
        raise UnsupportedError(
            'positions="compact" is defined for one-dimensional rotary positions only, and this model has M-RoPE; '
            'use positions="original"'
        )
    if any(layers):
        raise UnsupportedError(
            f'positions="compact" needs pruning before layer 0, not at layers {layers}: earlier layers have already '
            'used the original positions; use positions="original"'
        )


def check_call(training: bool, kwargs: dict[str, Any]) -> None:
    """Refuse forwards whose outputs could not line up with what the caller passed."""
    if training:
        raise UnsupportedError("the model is in training mode; call model.eval() before pruning")
    if kwargs.get("labels") is not None:
        raise UnsupportedError("labels cannot be used while pruning: the logits of pruned tokens do not exist")
