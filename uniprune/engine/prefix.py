"""Prefixes: the beginning of prompts, images included, prefilled and pruned once and then continued many times."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uniprune.engine.report import PrefillReport
from uniprune.errors import UnsupportedError
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


@torch.no_grad()
def prefilled(model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
    """Run a prefill; return the attention mask and the KV cache."""
    cache = model(**inputs, use_cache=True, logits_to_keep=1).past_key_values
    mask = inputs.get("attention_mask")
    return torch.ones_like(inputs["input_ids"]) if mask is None else mask, cache


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
