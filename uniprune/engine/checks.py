"""Refusals: of models, calls and method answers that cannot give right results, with the reason."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from uniprune.engine.deepstack import check_deepstack
from uniprune.engine.last_tokens import check_reused
from uniprune.engine.layer_kinds import check_kinds, check_recomputable
from uniprune.engine.served import check_kernel, check_not_compiled
from uniprune.errors import PruningError, UnsupportedError, UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.pruning.base import Pruner, Stage
from uniprune.pruning.placement import place, placed
from uniprune.pruning.text_checkpoint import text_checkpoint
from uniprune.utils.process_state import SETTINGS

BIASED = ("eager", "sdpa")
"""Attention kernels that take values to add to logits."""


# --- at entry ---------------------------------------------------------------------------------------------------
def checked_stages(adapter: ModelAdapter, pruner: Pruner) -> tuple[Stage, ...]:
    """Return the pruner's stages, in the order in which they act.

    Raises:
        UserError: a stage is outside the decoder, layers repeat, a vision layer does not exist, or a text tower is not
            that of the vision tower.
        UnsupportedError: the model or the combination cannot give right results.
    """
    if (first := pruner.input_stage) is not None:
        raise UnsupportedError(
            f"{type(first).__name__} changes images before they are processed, and a model gets them afterwards: "
            "evaluate it with run or sweep, or change the images with uniprune.evaluation.resizing.resized and prune "
            "with the method's after_input()"
        )
    count = len(adapter.layers)
    scheduled = pruner.schedule(count)
    layers = [stage.layer for stage in scheduled]
    name = type(pruner).__name__
    if any(not 0 <= layer < count for layer in layers):
        raise UserError(f"{name} prunes at layers {layers}, but the model's decoder layers are 0..{count - 1}")
    places = list(map(place, scheduled))
    if places != sorted(set(places)):
        raise UserError(
            f"{name} prunes at layers {layers}; they must increase, after at most one stage in the vision tower"
        )
    if any(stage.layer == 0 and stage.pruner.llm_attention for stage in scheduled):
        raise UnsupportedError(f"{name} ranks by LLM attention, which does not exist before layer 0; use layer >= 1")
    depth = len(adapter.vision_blocks())
    shares = [layer for layer in pruner.vision_layers if isinstance(layer, float)]
    if wrong := [share for share in shares if not 0 <= share <= 1]:
        raise UserError(f"{name} reads vision layers at {wrong} of the tower's depth; expected shares in [0, 1]")
    numbers = [layer for layer in pruner.vision_layers if isinstance(layer, int)]
    beyond = [layer for layer in numbers if not -depth <= layer < depth]
    if beyond:
        raise UserError(f"{name} reads vision layers {beyond}, but the tower's layers are {-depth}..{depth - 1}")
    _check_tower(adapter, pruner, scheduled)
    check_kinds(adapter, pruner)
    check_reused(adapter, layers, name)
    check_deepstack(adapter)
    check_not_compiled(adapter.model)
    check_kernel(adapter)
    _check_positions(adapter, pruner, layers)
    for folder in filter(None, map(text_checkpoint, (stage.pruner for stage in scheduled))):
        adapter.text_tower(folder)  # loaded before any forward is timed
    stages = placed(scheduled, adapter.attends)
    for stage in stages:
        read = ((stage.layer - 1, stage.pruner.llm_attention), (stage.layer, stage.pruner.upcoming_attention))
        for layer in (layer for layer, reads in read if reads):
            check_recomputable(adapter.layers[layer].self_attn)
    return stages


def in_tower(stages: Iterable[Stage]) -> Stage | None:
    """Return the stage inside the vision tower, if there is one that can drop something."""
    return next((stage for stage in stages if stage.block is not None and not stage.keeps_all), None)


def _check_tower(adapter: ModelAdapter, pruner: Pruner, stages: Sequence[Stage]) -> None:
    stage = in_tower(stages)
    if stage is None or stage.block is None:
        return
    name, reason, last = type(stage.pruner).__name__, adapter.whole_tower(), adapter.last_block()
    if reason is not None:
        raise UnsupportedError(
            f"{name} drops patches inside the vision tower, but this family's tower cannot drop patches: {reason}; use "
            "a method that acts after the tower"
        )
    if stage.plan is not None and adapter.merging_parts(adapter.vision_blocks()[0]) is None:
        raise UnsupportedError(
            f"{name} merges patches wherever they are, but this family joins neighbouring patches to tokens after its "
            "tower; use a method that drops tokens, or a family that projects patches one by one, as LLaVA-1.5"
        )
    if stage.plan is not None and (kernel := adapter.vision.config._attn_implementation) not in BIASED:
        raise UnsupportedError(
            f"{name} adds the sizes of merged tokens to attention logits, which {kernel} of the vision tower does not "
            f"take; load the model with one of {', '.join(BIASED)}"
        )
    if stage.plan is None and not (stage.pruner.exact or adapter.packed):
        raise UnsupportedError(
            f"{name} chooses how many patches stay, but this family's tower encodes tiles side by side, which must be "
            "as many; use a method that keeps a fixed number, or a family whose tower takes one sequence, as Qwen's do"
        )
    if stage.block > last:
        raise UserError(
            f"{name} acts before block {stage.block} of the vision tower, but the model uses its blocks 0..{last} only"
        )
    if pruner.vision_layers:
        raise UnsupportedError(
            f"{type(pruner).__name__} reads blocks of a vision tower inside which patches are dropped; compose "
            f"{name} with methods that read none"
        )
    whole = [type(one.pruner).__name__ for one in stages if place(one) == 0 and not one.pruner.takes_gaps]
    if whole:
        raise UnsupportedError(
            f"{whole[0]} takes whole grids of tokens, and {name} leaves gaps in them; compose {name} with a method "
            "that takes grids with gaps (takes_gaps in its class), or with one inside the language model"
        )


def check_encodable(stages: Iterable[Stage]) -> None:
    """Refuse to encode images for several methods with a tower that drops patches.

    Raises:
        UnsupportedError: naming the method.
    """
    if (stage := in_tower(stages)) is not None:
        raise UnsupportedError(
            f"{type(stage.pruner).__name__} drops patches inside the vision tower, so its image features cannot be "
            "shared with other methods; run it without --share-vision"
        )


def _check_positions(adapter: ModelAdapter, pruner: Pruner, layers: list[int]) -> None:
    if pruner.positions == "original":
        return
    rope = getattr(adapter.decoder.config, "rope_parameters", None) or {}
    if pruner.positions == "vllm" and not adapter.text_after():
        raise UnsupportedError(
            f'positions="vllm" is defined for families whose images vLLM prunes, not for {type(adapter).__name__}; '
            'use positions="original"'
        )
    if pruner.positions == "compact" and "mrope_section" in rope:
        raise UnsupportedError(
            'positions="compact" is defined for one-dimensional rotary positions only, and this model has M-RoPE; '
            'use positions="original"'
        )
    if any(layers):
        raise UnsupportedError(
            f'positions="{pruner.positions}" needs pruning before layer 0, not at layers {layers}: earlier layers have '
            'already used the original positions; use positions="original"'
        )


# --- before a forward -------------------------------------------------------------------------------------------
def check_arguments(kwargs: dict[str, Any]) -> None:
    """Refuse labels, which could not line up with the logits, and decoding without a KV cache.

    Without one, every step of `generate` would be the prefill of a new prompt: pruned anew, and reported anew.
    """
    if kwargs.get("labels") is not None:
        raise UnsupportedError("labels cannot be used while pruning: the logits of pruned tokens do not exist")
    if kwargs.get("use_cache") is False:
        raise UnsupportedError(
            "use_cache=False cannot be used while pruning: every generated token would prune the whole prompt anew; "
            "leave it out or pass use_cache=True"
        )


def check_mode(training: bool) -> None:
    """Refuse models in training mode."""
    if training:
        raise UnsupportedError("the model is in training mode; call model.eval() before pruning")


# --- of a method's side effects ---------------------------------------------------------------------------------
def process_settings() -> dict[str, Any]:
    """Return the settings of the process by name."""
    return {name: read() for name, (read, _) in SETTINGS.items()}


def restore(before: dict[str, Any]) -> list[str]:
    """Set the settings that differ from `before` back, and return their names."""
    now = process_settings()
    changed = [name for name in before if now[name] != before[name]] if now != before else []
    for name in changed:
        SETTINGS[name][1](before[name])
    return changed


def random_states() -> dict[str, Any]:
    """Return the states of the global random generators, as values to compare."""
    generator: Any = np.random.get_bit_generator()  # type: ignore[attr-defined]  # missing in its annotations
    usual = isinstance(generator, np.random.MT19937)  # 624 words and the position, in a hundredth of the time
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "torch on CUDA": torch.cuda.get_rng_state().numpy().tobytes() if torch.cuda.is_initialized() else b"",
        "NumPy": ctypes.string_at(generator.ctypes.state_address, 625 * 4) if usual else repr(generator.state),
        "Python": random.getstate(),
    }


def drawn(before: dict[str, Any]) -> list[str]:
    """Return the names of the generators that were drawn from or seeded since `before`."""
    now = random_states()
    return [name for name, state in before.items() if now[name] != state]


@contextmanager
def undisturbed(stage: Stage, call: str = "select") -> Iterator[None]:
    """Restore, after calls of a stage's method in the block, settings of the process that they changed.

    Raises:
        PruningError: it changed some. Later methods and the model itself would run under them.
    """
    before = process_settings()
    try:
        yield
    finally:
        changed = restore(before)
    if changed:
        raise PruningError(
            f"{type(stage.pruner).__name__} at layer {stage.layer}: {call}() changed the {', the '.join(changed)} of "
            "the process; a method leaves the process as it was (pass dtype= and device= to what it computes)"
        )


def check_undrawn(pruner: Pruner, before: dict[str, Any]) -> None:
    """Refuse a method that drew from a global random generator since `before`: nobody can draw the same again.

    Raises:
        PruningError: naming the method and the generators.
    """
    if names := drawn(before):
        raise PruningError(
            f"{type(pruner).__name__}: select() used the global random generator of {', '.join(names)}, so its choice "
            "depends on what ran before; use view.generator and declare random = True"
        )
