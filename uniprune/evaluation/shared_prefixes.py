"""Rows that begin alike, images included: what they share is prefilled and pruned once, and continued for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uniprune.engine.prefix import check_unaware
from uniprune.errors import UserError
from uniprune.evaluation.processing import EncodedRequest, hashed
from uniprune.pruning.base import Pruner

FEWEST_ROWS = 32
"""Rows that are at least compared with each other."""


def check_shareable(pruner: Pruner, num_layers: int) -> None:
    """Refuse a method whose choice differs from row to row of one image.

    Raises:
        UserError: naming the stages that do, which look at the question or draw at random for every row.
    """
    stages = pruner.schedule(num_layers)
    check_unaware(stages)
    if names := dict.fromkeys(type(stage.pruner).__name__ for stage in stages if stage.pruner.random):
        raise UserError(
            f"{' and '.join(names)} draws at random for every row, so that rows of one image cannot share what is left "
            "of it; leave out --share-prefix"
        )


def groups_alike(rows: Sequence[EncodedRequest], visual_ids: Sequence[int]) -> list[list[EncodedRequest]]:
    """Return groups of two and more rows that have equal images, and equal tokens up to the last of them."""
    groups: dict[tuple[str, bytes], list[EncodedRequest]] = {}
    for row in rows:
        if last := _last(row, visual_ids):
            key = hashed(row.visual), row.inputs["input_ids"][0, :last].tobytes()
            groups.setdefault(key, []).append(row)
    return [group for group in groups.values() if len(group) > 1 and common(group) >= _last(group[0], visual_ids)]


def common(rows: Sequence[EncodedRequest]) -> int:
    """Return how many tokens rows begin with alike; one of each at least is left, for the model to answer."""
    shortest = min(row.tokens for row in rows) - 1
    ids = np.stack([row.inputs["input_ids"][0, :shortest] for row in rows])
    return int((ids == ids[0]).all(0).cumprod().sum())


def _last(row: EncodedRequest, visual_ids: Sequence[int]) -> int:
    """Return the number of tokens up to the last visual placeholder; 0 without one."""
    places = np.isin(row.inputs["input_ids"][0], visual_ids).nonzero()[0]
    return int(places[-1]) + 1 if len(places) else 0
