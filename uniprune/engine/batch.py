"""The prompts of a prefill."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from uniprune.engine.prompt import Prompt
from uniprune.engine.question import PromptInfo
from uniprune.engine.token_groups import image_groups, scoped
from uniprune.engine.token_map import PrefillInputs, Tokens
from uniprune.modeling.image_grouping import Grouping
from uniprune.modeling.image_layout import ImageLayout
from uniprune.modeling.tower_work import TowerWork
from uniprune.pruning.base import Scope
from uniprune.pruning.view import Grid


@dataclass(frozen=True)
class Batch:
    """The prompts of a prefill. Holds no tensor of a layer and nothing of the model, so that reports may keep it.

    Attributes:
        inputs: ids and mask of the forward, copied to the CPU on first use.
        copies: rows per prompt: beams or returned sequences, which share one decision.
        scope: tokens of one decision.
        grouping: the family's rule for which encoded grids form an image.
        grids: (t, h, w) of the tower's call, None if unknown.
        layouts: the encoded images in prompt order, None if unknown.
        work: the tower's work on every image or tile; None if it dropped nothing or is unknown.
        fills: in prompts of images and videos the placeholder id of every layout: order is that of prompts for each.
    """

    inputs: PrefillInputs
    copies: int
    scope: Scope
    grouping: Grouping
    grids: list[Grid] | None
    layouts: list[ImageLayout] | None
    fills: list[int] | None
    work: list[TowerWork] | None = None

    @property
    def tokens(self) -> Tokens:
        """The un-pruned sequences."""
        return self.inputs.tokens

    @property
    def has_images(self) -> bool:
        """Return whether there is anything to prune."""
        return any(self.tokens.visual_counts)

    @cached_property
    def prompts(self) -> list[Prompt]:
        """One per `copies` rows.

        Raises:
            UnsupportedError: the encoded images do not fill the placeholders.
        """
        layouts = self.layouts if self.has_images else None
        images = image_groups(self.tokens.ids, self.tokens.visual, layouts, self.grouping, self.fills)
        rows = range(0, len(images), self.copies)
        infos = self.inputs.infos or tuple(PromptInfo(str(i)) for i in range(len(rows)))
        return [
            Prompt(info, row, scoped(images[row], self.scope, self.grids), self.tokens)
            for row, info in zip(rows, infos, strict=True)
        ]
