"""Looks of methods: hooks on parts of decoder layers, and what was made of the states there, a row per token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from uniprune.engine.checks import undisturbed
from uniprune.engine.device_tokens import DeviceTokens
from uniprune.engine.forward import Forward
from uniprune.engine.hooks import Hooks
from uniprune.engine.host_copy import to_device
from uniprune.engine.token_rows import Move, came_from
from uniprune.errors import PruningError, UnsupportedError, UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.pruning.base import Pruner, Stage
from uniprune.pruning.looks import PARTS, Look, Passage

if TYPE_CHECKING:
    from uniprune.engine.stage_groups import StageGroups

MIXERS = ("self_attn", "linear_attn")
"""Names of a layer's attention."""
BESIDE = ("act_fn", "per_layer_input_gate", "per_layer_projection")
"""Further modules of a layer, besides norms, that neither belong to attention or MLP nor add to what they compute."""


def looks_of(stages: Iterable[Stage]) -> dict[Look, list[Pruner]]:
    """Return, in the order in which they end, the looks whose rows some stage can read, with the methods that look."""
    layers: dict[int, tuple[Pruner, list[int]]] = {}
    for stage in stages:
        if not stage.keeps_all:
            layers.setdefault(id(stage.pruner), (stage.pruner, []))[1].append(stage.layer)
    found: dict[Look, list[Pruner]] = {}
    for pruner, own in layers.values():
        for look in dict.fromkeys(pruner.looks(own)):
            if look.layer < own[-1]:
                found.setdefault(look, []).append(pruner)
    return dict(sorted(found.items(), key=lambda item: (item[0].layer, PARTS.index(item[0].part))))


# --- hooks ------------------------------------------------------------------------------------------------------
def attach(hooks: Hooks, adapter: ModelAdapter, stages: Iterable[Stage], forward: Callable[[], Forward | None]) -> None:
    """Hook the parts of layers that methods look at; what enters whole layers their own hooks see.

    Args:
        hooks: those of the session.
        adapter: the model's adapter.
        stages: its pruning points.
        forward: returns the forward that is running.

    Raises:
        UserError: a layer is outside the decoder.
        UnsupportedError: a layer is built otherwise than the looks are defined for.
    """
    for look, pruners in looks_of(stages).items():
        if not 0 <= look.layer < len(adapter.layers):
            raise UserError(
                f"{type(pruners[0]).__name__} looks at layer {look.layer}, but the model's decoder layers are "
                f"0..{len(adapter.layers) - 1}; prune before other layers"
            )
        if look.part != "layer":
            module = part_of(adapter, look)
            hooks.before(module, partial(_before_look, forward, look))
            hooks.after(module, partial(_after_look, forward, look))


def part_of(adapter: ModelAdapter, look: Look) -> nn.Module:
    """Return the module of a part of a layer.

    Raises:
        UnsupportedError: the layer has other parts, so that this one may be a share of what it is looked at for.
    """
    layer = adapter.layers[look.layer]
    names = [name for name, _ in layer.named_children()]
    mixers = [name for name in names if name in MIXERS]
    others = [name for name in names if name not in (*mixers, "mlp", *BESIDE) and "norm" not in name]
    if len(mixers) != 1 or "mlp" not in names or others:
        raise UnsupportedError(
            f"{type(layer).__name__} consists of {', '.join(names)}; methods that look inside layers are defined for "
            "one attention and one mlp, between norms: use a method that does not"
        )
    module: nn.Module = getattr(layer, "mlp" if look.part == "mlp" else mixers[0])
    return module


def _before_look(
    forward: Callable[[], Forward | None], look: Look, module: nn.Module, args: Any, kwargs: dict[str, Any]
) -> None:
    if (running := forward()) is not None:
        running.before_look(look, args[0] if args else kwargs["hidden_states"])


def _after_look(forward: Callable[[], Forward | None], look: Look, module: nn.Module, args: Any, output: Any) -> None:
    if (running := forward()) is not None:
        running.after_look(look, output[0] if isinstance(output, tuple) else output)


# --- in a prefill -----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Seen:
    """The rows of one look.

    Attributes:
        rows: [B, n, ...] of the tokens at that time.
        now: these tokens.
        moves: tokens that were given other places since.
    """

    rows: Tensor
    now: DeviceTokens
    moves: Sequence[Move] = ()

    def of(self, groups: StageGroups) -> Tensor:
        """Return [P, N, ...] the rows of the tokens of groups; a merged token has that of its slot."""
        if self.now is groups.arriving.now:
            columns = groups.columns
        else:
            positions = groups.positions
            if self.moves:
                positions = came_from(positions, len(self.rows), self.now.length, self.moves)
            columns = self.now.columns_of(positions)
        return to_device(self.rows, columns.device).flatten(0, 1)[columns]


class Looks:
    """The looks of the methods of one prefill.

    Args:
        stages: its pruning points.
    """

    def __init__(self, stages: Iterable[Stage]) -> None:
        self._plan: Mapping[Look, list[Pruner]] = looks_of(stages)
        self._entered: dict[Look, Tensor] = {}
        self._seen: dict[int, list[tuple[Seen, int]]] = {}  # by method; how many moves preceded each

    def __contains__(self, look: Look) -> bool:
        """Return whether some method looks there."""
        return look in self._plan

    def before(self, look: Look, entering: Tensor) -> None:
        """Hold what enters a part [B, n, D] until it is left."""
        self._entered[look] = entering

    @torch.no_grad()
    def after(self, look: Look, leaving: Tensor, now: DeviceTokens, moves: Sequence[Move]) -> None:
        """Have the methods make their rows of what entered and what leaves a part [B, n, D].

        Args:
            look: the part.
            leaving: what leaves it.
            now: the tokens.
            moves: tokens that were given other places so far.

        Raises:
            UnsupportedError: the part does not have a row per token.
            PruningError: a method returned no row per token, or changed settings of the process.
        """
        entering = self._entered.pop(look)
        shape = (len(now.kept.lengths), now.kept.width)
        if leaving.shape != entering.shape or leaving.shape[:2] != shape:
            raise UnsupportedError(
                f"the {look.part} of layer {look.layer} takes {list(entering.shape)} and returns "
                f"{list(leaving.shape)} of {list(shape)} tokens; methods can look where each has one row"
            )
        real = now.valid(leaving.device)
        real = leaving.new_ones(shape, dtype=torch.bool) if real is None else real.clone()
        for pruner in self._plan[look]:
            with undisturbed(Stage(look.layer, 1.0, pruner), "look"):
                rows: Any = pruner.look(Passage(look, entering.clone(), leaving.clone(), real))
            if not isinstance(rows, Tensor) or rows.shape[:2] != shape:
                got = list(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
                raise PruningError(
                    f"{type(pruner).__name__}: look() returned {got} for the {look.part} of layer {look.layer}; "
                    f"expected a row per token, {[*shape, '...']}"
                )
            self._seen.setdefault(id(pruner), []).append((Seen(rows, now), len(moves)))

    def seen(self, stage: Stage, moves: Sequence[Move]) -> list[Seen]:
        """Return what a stage's method has looked at, in order.

        Args:
            stage: the stage that is about to decide.
            moves: tokens that were given other places so far.

        Raises:
            UnsupportedError: a part did not run as a module, so that its hook did not see it.
        """
        missing = [
            look
            for look, pruners in self._plan.items()
            if look.layer < stage.layer and any(one is stage.pruner for one in pruners)
        ][len(self._seen.get(id(stage.pruner), [])) :]
        if missing:
            raise UnsupportedError(
                f"{type(stage.pruner).__name__} looks at the {missing[-1].part} of layer {missing[-1].layer}, whose "
                "hook did not run: the part was replaced, or compiled by torch.compile; load the model anew"
            )
        return [Seen(one.rows, one.now, moves[first:]) for one, first in self._seen.get(id(stage.pruner), [])]
