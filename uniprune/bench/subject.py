"""The model that is timed: a checkpoint, or random weights of published dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from uniprune.architectures import configuration, random_model
from uniprune.catalog import find_model
from uniprune.errors import UserError
from uniprune.family import Family, find_family
from uniprune.loading import DTYPES, Placement, load

RANDOM = "random"


@dataclass(frozen=True)
class Subject:
    """A model to time.

    Attributes:
        name: as the user said it. family: its adapter. weights: `RANDOM`, or the checkpoint's commit or hash.
        placement: precision, kernel and device.
    """

    name: str
    family: Family
    weights: str
    placement: Placement


def subject(name: str, random_weights: bool, placement: Placement) -> Subject:
    """Build or load a model, ready to generate answers of any length that is asked for.

    Raises:
        UserError: it is unknown, cannot be loaded, or does not fit into memory.
    """
    try:
        if random_weights:
            device = "cuda" if placement.device == "balanced" else placement.device
            model = random_model(name, DTYPES[placement.dtype], placement.attention, device)
            family, weights = find_family(model), RANDOM
        else:
            loaded = load(find_model(name), placement)
            family, weights = loaded.family, loaded.weights
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{name} in {placement.dtype} does not fit into the memory of {placement.device}; use --dtype bfloat16, "
            "another --device or a smaller model"
        ) from error
    settings = family.model.generation_config
    settings.eos_token_id = None  # every answer gets its full length
    settings.pad_token_id = 0
    return Subject(name, family, weights, placement)


def check_names(names: Sequence[str], random_weights: bool) -> None:
    """Raise UserError for a model that does not exist, before the first one is timed."""
    for name in names:
        if random_weights:
            configuration(name)
        else:
            find_model(name)
