"""Prompts with fewer placeholders: their number is known before an image is encoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from vllm.multimodal.processing import PromptUpdateDetails

from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import keep_count
from uniprune_vllm.settings import method_of


class FewerPlaceholders:
    """Part of a processor of vLLM: as many placeholders as the method leaves of an image."""

    info: Any

    def _get_prompt_updates(self, *args: Any, **kwargs: Any) -> Sequence[Any]:
        pruner = method_of(self.info.get_hf_config())
        updates = super()._get_prompt_updates(*args, **kwargs)  # type: ignore[misc]  # a part of a processor
        return [fewer(update, pruner) for update in updates if update.modality == "image"]


def kept(total: int, pruner: Pruner, num_layers: int = 1) -> int:
    """Return how many of an image's tokens a method leaves; all if it prunes nothing."""
    stages = pruner.schedule(num_layers)
    return keep_count(total, stages[0].ratio) if stages else total


def fewer(update: Any, pruner: Pruner) -> Any:
    """Return a prompt update of vLLM with fewer placeholders for an image."""
    (token,) = update.target

    def replacement(item: int) -> Any:
        whole = update.replacement(item)
        ids: list[int] = whole if isinstance(whole, list) else whole.full
        first, total = ids.index(token), ids.count(token)
        left = [*ids[:first], *[token] * kept(total, pruner), *ids[first + total :]]
        return left if isinstance(whole, list) else PromptUpdateDetails.select_token_id(left, token)

    return dataclasses.replace(update, replacement=replacement)


class OnlyImages:
    """Part of what vLLM knows of a processor: videos, which are not pruned, are refused."""

    def get_supported_mm_limits(self) -> dict[str, int | None]:
        """Return images, as many as a prompt has room for."""
        return {"image": None}
