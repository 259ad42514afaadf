"""Preparation of a prefill by ids and sizes of images alone, while a GPU runs the vision tower.

The model waits for the tower before its decoder runs, so from there to the first layer a GPU idles while the CPU works.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from uniprune.engine.attended_pairs import AttendedPairs
from uniprune.engine.batch import Batch
from uniprune.engine.checks import random_states
from uniprune.engine.token_map import PrefillInputs, known_copies
from uniprune.engine.vision import Vision
from uniprune.errors import UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.pruning.base import Pruner


@dataclass(frozen=True)
class Preparation:
    """The prompts of a prefill, and the process before its first decision.

    Attributes:
        vision: the tower's call of the images, None if unknown.
        batch: the prompts.
        random: states of the global random generators; empty if nothing can be pruned.
        pairs: counts the pairs of tokens that attend to each other; None if nothing can be pruned.
    """

    vision: Vision | None
    batch: Batch
    random: dict[str, Any]
    pairs: AttendedPairs | None

    @classmethod
    def of(
        cls,
        adapter: ModelAdapter,
        pruner: Pruner,
        inputs: PrefillInputs,
        vision: Vision | None,
        copies: int,
        idle: bool = False,
    ) -> Self:
        """Return what is known before the decoder runs.

        Args:
            adapter: the model's adapter.
            pruner: the method.
            inputs: the forward's prompts, ids and mask.
            vision: the tower's call of the images; None if unknown.
            copies: rows per prompt.
            idle: whether nothing can be pruned.
        """
        grids = layouts = fills = work = None
        if inputs.has_visual:
            grids = None if vision is None else vision.grids
            layouts = adapter.image_layouts(None, {}) if vision is None else vision.layouts
            work = None if vision is None else vision.work
        if vision is not None and inputs.mixed:  # the placeholder id of every layout
            calls = zip(adapter.visual_token_ids, vision.calls, strict=True)
            fills = [number for number, call in calls for _ in call.layouts or ()]
        batch = Batch(inputs, copies, pruner.scope, adapter.image_grouping(), grids, layouts, fills, work)
        return cls(vision, batch, *(({}, None) if idle else (random_states(), AttendedPairs.of(adapter, inputs))))

    @classmethod
    def early(
        cls, adapter: ModelAdapter, pruner: Pruner, inputs: PrefillInputs | None, vision: Vision | None
    ) -> Self | None:
        """Return the same right after the tower was called, with what the first decision reads of the prompts.

        None where more must be known: a second call of the tower, or embeddings that tell which rows are copies.
        """
        if inputs is None or inputs.mixed:
            return None
        tokens = inputs.tokens
        with suppress(UserError):  # it is raised again, where the model has found its own errors
            copies = known_copies(inputs, len(tokens.real))
            if copies is not None:
                made = cls.of(adapter, pruner, inputs, vision, copies)
                _ = tokens.unpruned, tokens.end, [p.start_of(group) for p in made.batch.prompts for group in p.groups]
                return made
        return None
