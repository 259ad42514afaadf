"""Tokens that a KV cache holds before a later turn: which in every layer, and where the turn's positions begin."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.attended_pairs import AttendedPairs
from uniprune.engine.compaction import CacheState, recall
from uniprune.engine.host_copy import to_host
from uniprune.engine.kept_tokens import KeptTokens, Known, active
from uniprune.engine.token_map import placeholders
from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.families import find_adapter

GRIDS = ("image_grid_thw", "video_grid_thw")
"""Arguments of models with M-RoPE by which images and videos have positions."""


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
        stages = tuple(joined(kept.layer, kept, _run(state.prompt_length, grown, batch)) for kept in state.stages)
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


def next_turn(model: Any, inputs: dict[str, Any], cache: Any) -> dict[str, Any]:
    """Return the arguments of `generate`, inside the session that filled `cache`, for a later turn with new images.

    Args:
        model: the model.
        inputs: ids and pixels of the turn alone; `attention_mask` is that of the whole conversation, if it has padding.
        cache: the KV cache of all earlier tokens. Every call of `generate` adds to it.

    Raises:
        UnsupportedError: it was not filled in a session, or a mask or `mm_token_type_ids` is missing.
    """
    adapter, state, ids = find_adapter(model), recall(cache), inputs["input_ids"]
    if state is None:
        raise UnsupportedError("the KV cache was not filled in a session, so that the turn's positions are unknown")
    earlier = EarlierTurns.of(state, cache, inputs.get("attention_mask"), len(ids))
    whole = torch.ones(len(ids), earlier.whole.width + ids.shape[1], dtype=torch.long, device=ids.device)
    positions = turn_positions(adapter, earlier, inputs)
    return {"attention_mask": whole, **inputs, "position_ids": positions, "past_key_values": cache}


def turn_positions(adapter: ModelAdapter, earlier: EarlierTurns, kwargs: dict[str, Any]) -> Tensor:
    """Return positions [..., B, q] of a turn's tokens, which continue the un-pruned conversation.

    Raises:
        UnsupportedError: the model has M-RoPE, and neither the grids of the turn's images nor positions are given.
    """
    ids = kwargs["input_ids"]
    first, rule = earlier.next_position.to(ids.device), getattr(adapter.base, "get_rope_index", None)
    if rule is None:
        return first + torch.arange(ids.shape[1], device=ids.device).expand(len(ids), -1)
    images = placeholders(adapter, kwargs)
    if not bool(images.any()):
        return first[-3:] + torch.arange(ids.shape[1], device=ids.device).expand(3, len(ids), -1)
    first, given = first[-3:], kwargs.get("position_ids")  # `generate` has a count before the three axes
    if all(kwargs.get(name) is None for name in GRIDS):  # `generate` keeps them from the forward
        if given is None or torch.equal(given[-3:].amax(0)[images], given[-3:].amin(0)[images]):
            raise UnsupportedError(
                "the turn's images are counted as text, for their grids are not known here; for generate, pass what "
                "uniprune.engine.next_turn returns"
            )
        checked: Tensor = given[-3:]
        return checked
    if kwargs.get("mm_token_type_ids") is None:
        raise UnsupportedError("a turn with new images needs mm_token_type_ids; pass what the processor returns")
    names = [name for name in inspect.signature(rule).parameters if name != "attention_mask"]
    found: Tensor = rule(**{name: kwargs[name] for name in names if kwargs.get(name) is not None})[0]
    return first + found


def _run(start: int, count: int, batch: int) -> KeptTokens:
    """Return `count` columns of a batch, from an un-pruned position on."""
    index = np.broadcast_to(np.arange(start, start + count), (batch, count))
    return KeptTokens(0, (count,) * batch, count, np.ones((batch, count), np.bool_), Known(index))


def joined(layer: int, first: KeptTokens, then: KeptTokens, start: int = 0) -> KeptTokens:
    """Return the columns of two sequences; positions of the second one are counted from `start`."""
    lengths = tuple(a + b for a, b in zip(first.lengths, then.lengths, strict=True))
    index = np.concatenate((first.index, np.where(then.valid, then.index + start, 0)), axis=1)
    valid = np.concatenate((first.valid, then.valid), axis=1)
    return KeptTokens(layer, lengths, first.width + then.width, valid, Known(index))
