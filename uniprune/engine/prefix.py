"""Prefixes: the beginning of prompts, images included, prefilled and pruned once and then continued many times."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.attended_pairs import AttendedPairs
from uniprune.engine.kept_tokens import KeptTokens, Known, active
from uniprune.engine.report import PrefillReport, RowReport
from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.pruning.base import Stage


@dataclass(frozen=True)
class Prefix:
    """A batch of prefixes, see `Session.prefix`.

    Attributes:
        report: the prefill.
        attention_mask: [B, L] False (or 0) at padding.
        cache: the pruned KV cache; every continuation gets a copy.
    """

    report: PrefillReport
    attention_mask: Tensor
    cache: Any

    def continued(self, ids: Tensor) -> dict[str, Any]:
        """Return arguments of `generate`, inside the session, for prompts that go on with `ids` [B, Q], un-padded.

        The sequences that it returns begin with these ids.
        """
        start = self.report.next_position
        positions = start + torch.arange(ids.shape[1], device=start.device)
        real = torch.ones_like(ids, dtype=self.attention_mask.dtype)
        return {
            "input_ids": ids,
            "attention_mask": torch.cat([self.attention_mask, real], 1),
            "position_ids": positions.expand(*positions.shape[:-2], *ids.shape).to(ids.device),
            "past_key_values": copy.deepcopy(self.cache),
        }

    def row(self, more: int) -> RowReport:
        """Return the report of the first prompt as if `more` tokens of text had been its end.

        Costs are those of a prompt that is prefilled whole.
        """
        report, length = self.report, self.attention_mask.shape[1]
        unpruned, [found, *_] = report.batch.tokens.unpruned, report.rows
        count, total = _counting(report.pairs, more), 0
        pairs = [
            count(layer, _longer(active(report.kept, layer) or unpruned, length, more), 0)
            for layer in range(len(found.pairs))
        ]
        for number, size in enumerate(report.sizes or ()):
            window = getattr(self.cache.layers[number], "sliding_window", None)
            room = size.columns + more if window is None else min(size.columns + more, window - 1)
            held = (active(report.cached, number) or unpruned).lengths[0] + more
            total += size.token * min(held, room) + size.state
        added = {name: getattr(found, name) + more for name in ("text", "tokens", "positions")}
        return replace(found, **added, pairs=pairs, kv_bytes=None if report.sizes is None else total)


@torch.no_grad()
def prefilled(adapter: ModelAdapter, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
    """Run a prefill; return the attention mask and the KV cache.

    Raises:
        UnsupportedError: the rest of a prompt would not follow the positions of this beginning.
    """
    seen: list[Tensor | None] = []
    hook = adapter.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs.get("position_ids")), with_kwargs=True
    )
    try:
        cache = adapter.model(**inputs, use_cache=True, logits_to_keep=1).past_key_values
    finally:
        hook.remove()
    _check_ends(seen[-1])
    mask = inputs.get("attention_mask")
    return torch.ones_like(inputs["input_ids"]) if mask is None else mask, cache


def _check_ends(positions: Tensor | None) -> None:
    """Refuse a beginning whose next position as text is not the one of a generated token, which is after them all.

    Raises:
        UnsupportedError: frames of a video lie further apart in time than the text after it is long.
    """
    if positions is None or positions.dim() < 3:
        return
    rows, columns = positions[-2:, :, -1]
    if bool((positions[-3:].amax((0, -1)) > torch.maximum(rows, columns)).any()):
        raise UnsupportedError(
            "a video's positions in time go beyond those of the text after it, among which the rest of the prompt "
            "would be, while what is generated comes after them; such a prefix cannot be continued: prefill whole "
            "prompts"
        )


def _longer(kept: KeptTokens, length: int, more: int) -> KeptTokens:
    """Return the tokens of a layer, `more` of them added after those of the un-pruned prompt of a `length`."""
    added = np.broadcast_to(np.arange(length, length + more), (len(kept.lengths), more))
    index, valid = np.hstack([kept.index, added]), np.hstack([kept.valid, np.ones_like(added, np.bool_)])
    lengths = tuple(number + more for number in kept.lengths)
    return KeptTokens(kept.layer, lengths, kept.width + more, valid, Known(index))


def _counting(pairs: AttendedPairs, more: int) -> Callable[[int, KeptTokens, int], float]:
    """Return the function that counts pairs of tokens, `more` of them added, which are in no block."""
    blocks = None if pairs.blocks is None else torch.nn.functional.pad(pairs.blocks, (0, more), value=-1)
    return replace(pairs, blocks=blocks).count


def check_unaware(stages: Iterable[Stage]) -> None:
    """Refuse a method that looks at the question, which does not exist yet.

    Raises:
        UnsupportedError: naming the stages that do.
    """
    if names := dict.fromkeys(type(stage.pruner).__name__ for stage in stages if stage.pruner.prompt_aware):
        raise UnsupportedError(
            f"{' and '.join(names)} chooses tokens by the question, or by attention from text behind the image, so "
            "prompts with other questions cannot share a prefix; use a method that is not prompt_aware"
        )
