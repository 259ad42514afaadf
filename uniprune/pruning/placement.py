"""Pruning points of a method in a decoder that has no attention in some of its layers.

A method that reads LLM attention before layer K reads that of layer K - 1 (`view.attention`) or of K (`view.upcoming`).
Where that layer has none, the pruning point moves to the first later layer where it does, so that no token goes earlier
than the method says; if there is none, to the last layer where it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from uniprune.errors import UnsupportedError

if TYPE_CHECKING:
    from uniprune.pruning.base import Stage

TOWER = -1
"""Place of a stage in the vision tower, before all layers of the decoder."""
Move = tuple[int, int]
"""The layer of a method's pruning point, and the layer at which it is used instead."""


def placed(stages: Sequence[Stage], attends: Sequence[bool]) -> tuple[Stage, ...]:
    """Return the stages at layers where the attention that they read exists.

    Of stages of one method that move to one layer the last stays: its ratio counts from the tokens of the first.

    Args:
        stages: a method's schedule, in layer order.
        attends: for every decoder layer, whether it has queries and keys; empty if all have.

    Raises:
        UnsupportedError: no layer fits, or stages of two methods change places.
    """
    found: list[Stage] = []
    for stage in stages:
        moved = replace(stage, layer=_nearest(stage, attends))
        if found and moved.layer == found[-1].layer and moved.pruner is found[-1].pruner:
            found.pop()
        if found and place(moved) <= place(found[-1]) and not all(attends):
            raise UnsupportedError(
                f"with the attention that this decoder has, {type(found[-1].pruner).__name__} prunes at layer "
                f"{found[-1].layer} and {type(stage.pruner).__name__} at layer {moved.layer}: they would change "
                "places; give them other layers"
            )
        found.append(moved)
    return tuple(found)


def place(stage: Stage) -> int:
    """Return the decoder layer before which a stage acts, or `TOWER`."""
    return stage.layer if stage.block is None else TOWER


def moves(stages: Sequence[Stage], attends: Sequence[bool]) -> list[Move]:
    """Return where `placed` puts the stages that do not stay where the method has them."""
    pairs = [(stage.layer, _nearest(stage, attends)) for stage in stages]
    return [(before, after) for before, after in pairs if before != after]


def _nearest(stage: Stage, attends: Sequence[bool]) -> int:
    """Return the layer of a stage, or the one to which it moves."""
    own, coming = stage.pruner.llm_attention, stage.pruner.upcoming_attention
    if (not own and not coming) or all(attends):
        return stage.layer
    fitting = [
        layer
        for layer in range(len(attends))
        if (not own or (layer > 0 and attends[layer - 1])) and (not coming or attends[layer])
    ]
    if not fitting:
        raise UnsupportedError(
            f"{type(stage.pruner).__name__} reads LLM attention, and no layer of the decoder has what it reads; use a "
            "method that reads none"
        )
    return next((layer for layer in fitting if layer >= stage.layer), fitting[-1])
