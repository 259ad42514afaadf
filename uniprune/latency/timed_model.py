"""Models to time: checkpoints, or random weights of published dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from uniprune.errors import UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.catalog import find_model
from uniprune.modeling.families import find_adapter
from uniprune.modeling.loading import DTYPES, LoadedModel, Placement, outline, with_weights
from uniprune.modeling.random_weights import random_model
from uniprune.modeling.varlen import use_tower_attention
from uniprune.utils.hashing import stable_hash
from uniprune.utils.memory import is_out_of_memory

RANDOM = "random"


@dataclass(frozen=True)
class TimedModel:
    """A model to time.

    Attributes:
        name: as the user gave it.
        adapter: its layout.
        weights: `RANDOM` and a hash of the dimensions, or the checkpoint's commit or hash.
        placement: precision, kernel and device.
    """

    name: str
    adapter: ModelAdapter
    weights: str
    placement: Placement


def load_timed(
    name: str, random_weights: bool, placement: Placement, outlined: LoadedModel | None = None
) -> TimedModel:
    """Build or load a model that generates exactly as many tokens as requested.

    Args:
        name: as the user gave it.
        random_weights: whether to build it from its dimensions.
        placement: precision, kernel and device.
        outlined: the checkpoint's outline from `check_models`, if there is one.

    Raises:
        UserError: it is unknown, cannot be loaded, or does not fit into memory.
    """
    try:
        if random_weights:
            device = "cuda" if placement.device == "balanced" else placement.device
            model = random_model(name, DTYPES[placement.dtype], placement.attention, device)
            adapter, weights = find_adapter(model), f"{RANDOM}:{_hash(model.config)}"
            placement = placement.of(adapter)
            if placement.tower is not None:
                use_tower_attention(model, placement.tower)
        else:
            loaded = with_weights(outlined or outline(find_model(name), placement))
            adapter, weights, placement = loaded.adapter, loaded.weights, loaded.placement
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{name} in {placement.dtype} does not fit into the memory of {placement.device}; use --dtype bfloat16, "
            "another --device or a smaller model"
        ) from error
    except ImportError as error:
        raise UserError(f"--attn {placement.attention}: {' '.join(str(error).split())[:300]}") from error
    return TimedModel(name, adapter, weights, placement)


def check_models(
    names: Sequence[str], random_weights: bool, placement: Placement, tokens: Sequence[int]
) -> list[LoadedModel | None]:
    """Outline checkpoints before the first model is timed; None for random weights.

    Raises:
        UserError: a model does not exist, or takes no image of so many visual tokens.
    """
    found: list[LoadedModel | None] = []
    for name in names:
        found.append(None if random_weights else outline(find_model(name), placement))
        adapter = found[-1].adapter if found[-1] else find_adapter(random_model(name, torch.float32, "sdpa", "meta"))
        check_tokens(adapter, tokens)
    return found


def check_tokens(adapter: ModelAdapter, tokens: Sequence[int]) -> None:
    """Check that the model and the memory of this machine take images of so many visual tokens.

    Raises:
        UserError: they do not.
    """
    for visual in tokens:
        try:
            adapter.random_image(*adapter.image_of(visual), torch.Generator())
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(f"an image of {visual} visual tokens does not fit into memory; use fewer") from error


def _hash(config: Any) -> str:
    """Hash a configuration with its defaults: a folder's may be edited between two measurements."""
    return stable_hash(config.to_json_string(use_diff=False))
