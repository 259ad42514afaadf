"""A later turn with new images on a cache that holds earlier turns: only its own images are pruned.

The tokens of earlier turns stay as they are: every layer goes on with those that it holds. Positions continue the
un-pruned conversation. New tokens attend to all that a layer holds, and causally to each other.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from uniprune.engine.checks import check_undrawn
from uniprune.engine.compaction import CacheState, held_layers, remember, take
from uniprune.engine.earlier_turns import EarlierTurns, TurnPairs, joined, turn_positions
from uniprune.engine.host_copy import sent, to_device
from uniprune.engine.kept_tokens import active
from uniprune.engine.layer_kinds import attention_mask, needs_positions
from uniprune.engine.prefill import Prefill
from uniprune.engine.report import PrefillReport
from uniprune.engine.token_map import placeholders, visual_inputs
from uniprune.engine.turn_attention import TurnCapture
from uniprune.errors import UnsupportedError, UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.context import FULL, context_length, reusing_layers
from uniprune.pruning.base import Pruner, Stage


@dataclass(frozen=True)
class Turn:
    """A turn about to run.

    Attributes:
        earlier: what the cache holds.
        arguments: those of the model, with positions [..., B, q] of the un-pruned conversation.
    """

    earlier: EarlierTurns
    arguments: dict[str, Any]


class FurtherTurn(Prefill):
    """One forward with images on a cache that is not empty; its report is about the turn's own tokens.

    Args:
        earlier: what the cache holds.
        given: arguments of `Prefill`.
    """

    def __init__(self, earlier: EarlierTurns, *given: Any) -> None:
        super().__init__(*given)
        self.earlier = earlier
        self.layers = range(len(self._adapter.layers))
        self._masks: dict[tuple[int, int], Any] = {}

    def before_attention(self, layer: int, module: nn.Module, hidden: Tensor, kwargs: dict[str, Any]) -> None:
        """Capture the attention of the layer before a stage, for its method."""
        cos, sin = kwargs["position_embeddings"]
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        self._captured = TurnCapture(module, layer, hidden, cos, sin, cache, mask).checked()

    def before_layer(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]] | None:
        """Run the layer's stage, if any; return also a mask where the model's, sized on layer 0, does not fit."""
        changed = super().before_layer(layer, hidden, kwargs)
        if self.kept or self.earlier.at(layer) is self.earlier.at(0):
            return changed
        hidden, arguments = changed or (hidden, {})
        return hidden, arguments | {"attention_mask": self._mask(layer, hidden)}

    def _layer_arguments(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of `layer` for the tokens that are left."""
        with self._method_time():
            rows, positions = self._rotary_rows, kwargs.get("position_ids")
            if positions is not None and needs_positions(self._adapter.layers[layer]):
                positions = positions.expand(len(rows), -1).gather(1, to_device(rows, positions.device))
            else:
                positions = None
            tables = tuple(take(table, rows) for table in kwargs["position_embeddings"])
            mask = self._mask(layer, hidden)
            return {"position_embeddings": tables, "attention_mask": mask, "position_ids": positions}

    def _mask(self, layer: int, hidden: Tensor) -> Any:
        """Return the mask of what a layer holds and the turn's tokens that are left."""
        held, own = self.earlier.at(layer), self._current.kept
        if (held.layer, own.layer) not in self._masks:
            valid = np.concatenate((held.valid, own.valid), axis=1)
            known = None if valid.all() else sent(valid, hidden.device)
            config = self._adapter.decoder.config
            # Without windows no position is read.
            mask = attention_mask(config, FULL, layer, hidden, known, self._cache, lambda: torch.empty(0), 0)
            self._masks[held.layer, own.layer] = mask
        return self._masks[held.layer, own.layer]

    def after_model(self) -> PrefillReport:
        """Store on the cache what its layers hold now, and return the turn's report.

        Raises:
            PruningError: as for a prefill.
        """
        with self._method_time():
            if self._stages:
                check_undrawn(self._pruner, self._random)
            self._check()
            earlier, new = self.earlier, self.batch.tokens.unpruned
            places = sorted({kept.layer for kept in (*earlier.stages, *self.kept)})
            stages = tuple(
                joined(layer, earlier.at(layer), active(self.kept, layer) or new, earlier.whole.width)
                for layer in places
            )
            length = earlier.whole.width + new.width
            remember(self._cache, CacheState(stages, length, self._next_position, None, recounted=True))
            return PrefillReport(
                self.batch,
                tuple(stage.layer for stage in self._scheduled),
                self.widths,
                self.kept,
                self.kept,
                held_layers(self._cache),
                TurnPairs(**vars(self._pairs), earlier=replace(earlier, next_position=torch.empty(0))),
                self._next_position,
            )


def further_turn(
    adapter: ModelAdapter, stages: Collection[Stage], pruner: Pruner, state: CacheState | None, kwargs: dict[str, Any]
) -> Turn | None:
    """Return the turn that a forward with arguments `kwargs` is, on a cache that was pruned as `state` has it.

    None without new images, and where nothing was dropped nor can be.

    Raises:
        UnsupportedError: model, method, cache or arguments are not those for which the result is exact.
        UserError: the turn does not fit into the model's context.
    """
    idle = (state is None or not state.stages) and all(stage.keeps_all for stage in stages)
    if idle or not visual_inputs(kwargs) or not bool(placeholders(adapter, kwargs).any()):
        return None
    cache = kwargs["past_key_values"]
    _check_turn(adapter, stages, pruner, state, cache, kwargs)
    assert state is not None  # checked
    ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
    batch, new = ids.shape
    earlier = EarlierTurns.of(state, cache, mask, batch)
    past = earlier.whole.width
    if mask is not None and (mask.shape != (batch, past + new) or not bool(mask[:, past:].all())):
        raise UnsupportedError(
            f"the attention_mask of a turn with new images is {list(mask.shape)}; expected [{batch}, {past + new}], "
            "the whole conversation, without padding in the turn"
        )
    if any(len(kept.lengths) != batch for kept in earlier.stages):
        raise UnsupportedError(f"the turn has {batch} rows, but the cache was filled with another number of them")
    positions = turn_positions(adapter, earlier, kwargs)
    given = kwargs.get("position_ids")
    if given is not None and not bool((given[-len(positions) :][..., :1] == positions[..., :1]).all()):
        raise UnsupportedError(
            f"the turn begins at position {int(given.flatten()[0])}, but the conversation goes on at "
            f"{int(positions.flatten()[0])}; pass the new ids only, with the attention_mask of the whole conversation"
        )
    room, needed = context_length(adapter.decoder.config), int(positions.max()) + 1
    if room is not None and needed > room:
        raise UserError(
            f"with this turn the conversation takes {needed} positions, but the model was made for {room}; leave the "
            "image out, or start again with a shorter conversation"
        )
    held = earlier.at(0)
    valid = np.concatenate((held.valid, np.ones((batch, new), np.bool_)), axis=1)
    fits = None if valid.all() else sent(valid, ids.device).long()
    return Turn(earlier, {**kwargs, "position_ids": positions, "attention_mask": fits})


def _check_turn(
    adapter: ModelAdapter,
    stages: Collection[Stage],
    pruner: Pruner,
    state: CacheState | None,
    cache: Any,
    kwargs: dict[str, Any],
) -> None:
    """Refuse a turn whose result would not be exact."""
    config, name = adapter.decoder.config, type(pruner).__name__
    readers = [type(one.pruner).__name__ for one in stages if one.pruner.upcoming_attention]
    problem = None
    if set(adapter.kinds) != {FULL} or adapter.block_kinds or reusing_layers(config):
        problem = "this model has layers with windows, linear or two-way attention, or reused keys"
    elif readers:
        problem = f"{readers[0]} reads the attention of a layer that has not run, which would be that of this turn only"
    elif pruner.evict_from(len(adapter.layers)) is not None:
        problem = f"{name} evicts tokens from the cache"
    elif pruner.positions != "original" or (state is not None and state.shift is not None):
        problem = f"{name} has {pruner.positions} positions"
    elif type(cache) is not DynamicCache or cache.offloading:
        problem = f"it is {'an offloaded' if cache.offloading else 'a'} {type(cache).__name__}"
    elif kwargs.get("input_ids") is None:
        problem = "the turn has no input_ids"
    elif state is None:
        problem = "it was filled outside of a session, as learned prefixes are, so that its positions are unknown"
    if problem is not None:
        raise UnsupportedError(
            f"new images on top of a filled KV cache are not supported here: {problem}; start again with an empty "
            "cache and the whole conversation"
        )
