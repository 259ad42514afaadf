"""A later turn with new images on a cache that holds earlier turns: only its own images are pruned.

The tokens of earlier turns stay as they are: every layer goes on with those that it holds. Positions continue the
un-pruned conversation. New tokens attend to all that a layer holds, and causally to each other.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from uniprune.engine.attended_pairs import AttendedPairs
from uniprune.engine.checks import check_undrawn
from uniprune.engine.compaction import CacheState, cached_layers, remember, take
from uniprune.engine.host_copy import sent, to_device, to_host
from uniprune.engine.kept_tokens import KeptTokens, Known, active
from uniprune.engine.layer_kinds import FULL, attention_mask, layer_kinds, needs_positions
from uniprune.engine.prefill import Prefill
from uniprune.engine.report import PrefillReport
from uniprune.engine.token_map import placeholders, visual_inputs
from uniprune.errors import UnsupportedError, UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.context import context_length, reusing_layers
from uniprune.pruning.base import Pruner, Stage


@dataclass(frozen=True)
class EarlierTurns:
    """Tokens that a cache holds before a turn.

    Attributes:
        stages: the tokens from every layer on at which some were dropped, in layer order.
        whole: those of the layers before.
        next_position: [..., B, 1] position ids of the turn's first token.
    """

    stages: tuple[KeptTokens, ...]
    whole: KeptTokens
    next_position: Tensor

    @classmethod
    def of(cls, state: CacheState, cache: Any, mask: Tensor | None, batch: int) -> EarlierTurns:
        """Return those of a cache.

        Args:
            state: how it was pruned.
            cache: the cache.
            mask: [B, L] False at padding, of the whole conversation, this turn included; None without padding.
            batch: B.

        Raises:
            UnsupportedError: it holds less than the first turn.
        """
        grown = int(cache.get_seq_length()) - state.length(0)
        if grown < 0:
            raise UnsupportedError("tokens of the prompt were taken back from the cache; start again with an empty one")
        length = state.prompt_length + grown
        real = np.ones((batch, length), np.bool_)
        if mask is not None:
            real = to_host([mask[:, :length]])[0].astype(np.bool_)
        index = np.broadcast_to(np.arange(length), real.shape)
        whole = KeptTokens(0, tuple(real.sum(1).tolist()), length, real, Known(index))
        stages = tuple(_joined(kept.layer, kept, _run(state.prompt_length, grown, batch)) for kept in state.stages)
        return cls(stages, whole, state.next_position + grown)

    def at(self, layer: int) -> KeptTokens:
        """Return the tokens that a layer holds."""
        return active(self.stages, layer) or self.whole


@dataclass(frozen=True)
class TurnPairs(AttendedPairs):
    """Counts also the pairs with tokens of earlier turns.

    Attributes:
        earlier: these turns.
    """

    earlier: EarlierTurns

    def count(self, layer: int, kept: KeptTokens, row: int) -> float:
        """Return the pairs of the turn's tokens in a row."""
        return super().count(layer, kept, row) + kept.lengths[row] * self.earlier.at(layer).lengths[row]


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
            mask = attention_mask(config, layer, hidden, known, self._cache, lambda: torch.empty(0), 0)
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
                _joined(layer, earlier.at(layer), active(self.kept, layer) or new, earlier.whole.width)
                for layer in places
            )
            length = earlier.whole.width + new.width
            remember(self._cache, CacheState(stages, length, self._next_position, None, recounted=True))
            pairs = AttendedPairs.of(self._adapter, self.batch.inputs)
            return PrefillReport(
                self.batch,
                tuple(stage.layer for stage in self._scheduled),
                self.widths,
                self.kept,
                self.kept,
                cached_layers(self._cache),
                TurnPairs(**vars(pairs), earlier=replace(earlier, next_position=torch.empty(0))),
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
    axes = slice(-3, None) if earlier.next_position.dim() == 3 else slice(None)  # `generate` has a count before them
    positions = earlier.next_position[axes].to(ids.device) + _own_positions(adapter, kwargs)
    given = kwargs.get("position_ids")
    if given is not None and not bool((given[axes][..., :1] == positions[..., :1]).all()):
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


def _own_positions(adapter: ModelAdapter, kwargs: dict[str, Any]) -> Tensor:
    """Return positions [..., B, q] of the turn alone, from 0."""
    ids = kwargs["input_ids"]
    rule = getattr(adapter.base, "get_rope_index", None)
    if rule is None:
        return torch.arange(ids.shape[1], device=ids.device).expand(len(ids), -1)
    if kwargs.get("mm_token_type_ids") is None:
        raise UnsupportedError("a turn with new images needs mm_token_type_ids; pass what the processor returns")
    names = [name for name in inspect.signature(rule).parameters if name != "attention_mask"]
    found: Tensor = rule(**{name: kwargs[name] for name in names if kwargs.get(name) is not None})[0]
    return found


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
    readers = [type(one.pruner).__name__ for one in stages if one.pruner.llm_attention or one.pruner.upcoming_attention]
    problem = None
    if set(layer_kinds(config)) != {FULL} or adapter.block_kinds or reusing_layers(config):
        problem = "this model has layers with windows, linear or two-way attention, or reused keys"
    elif readers:
        problem = f"{readers[0]} ranks by attention of the language model, which would be that of this turn only"
    elif pruner.evict_from(len(adapter.layers)) is not None:
        problem = f"{name} evicts tokens from the cache"
    elif pruner.positions == "compact" or (state is not None and state.shift is not None):
        problem = f"{name} has compact positions"
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


def _run(start: int, count: int, batch: int) -> KeptTokens:
    """Return `count` columns of a batch, from an un-pruned position on."""
    index = np.broadcast_to(np.arange(start, start + count), (batch, count))
    return KeptTokens(0, (count,) * batch, count, np.ones((batch, count), np.bool_), Known(index))


def _joined(layer: int, first: KeptTokens, then: KeptTokens, start: int = 0) -> KeptTokens:
    """Return the columns of two sequences; positions of the second one are counted from `start`."""
    lengths = tuple(a + b for a, b in zip(first.lengths, then.lengths, strict=True))
    index = np.concatenate((first.index, np.where(then.valid, then.index + start, 0)), axis=1)
    valid = np.concatenate((first.valid, then.valid), axis=1)
    return KeptTokens(layer, lengths, first.width + then.width, valid, Known(index))
