"""Base class of methods that decide inside the vision tower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from uniprune.errors import UserError
from uniprune.pruning.base import PreLLM, Scope, Stage
from uniprune.pruning.fields import NonNegative


@dataclass(frozen=True, kw_only=True)
class InTower(PreLLM):
    """A method that decides before block K of the vision tower, by default K = 0; the later blocks run on what is kept.

    The language model gets the kept tokens only, as after a choice before its layer 0. Every tile (or frame) that the
    tower encodes is a decision of its own, made before the prompt is known. Where the model joins several patches to
    one visual token, the tokens are chosen, so that all patches of a token stay or go together.

    The view of `select` has `tokens` [N, C], the states that enter block K with the patches of a token side by side,
    `pixels`, `grids` (one), `cells`, `initial`, `layer` (K), `num_layers` (blocks of the tower) and `generator`, which
    is seeded by the pixels: an image gets one draw in whatever prompt it is.

    Args:
        block: K, the first block of the tower that receives fewer tokens.
    """

    block: NonNegative = 0
    scope: Scope = "tile"
    kind: ClassVar[str] = "tower"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, only in (("scope", "tile"), ("order", "raster")):
            if (value := getattr(self, name)) != only:
                raise UserError(
                    f"{type(self).__name__} decides in the vision tower, tile by tile and in place, so {name} must be "
                    f"{only!r}, not {value!r}"
                )

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """Return one pruning point: before layer 0 for the language model, before `block` for the tower.

        None at ratio 1, also of a method that chooses its own number of tokens.
        """
        return () if self.ratio == 1 else (Stage(self.layer, self.ratio, self, self.block),)


@dataclass(frozen=True, kw_only=True)
class MergesInTower(InTower):
    """A method that merges tokens inside the blocks of the vision tower, between attention and MLP.

    `select` is called for every tile in every block that merges something, with `view.block`. It returns the survivors
    in their order with the means they become, and sets `view.block.merged`. Later blocks add the logarithm of a token's
    size to the logits of attention to it.

    Args:
        block: the first block that merges.
    """

    def plan(self, tokens: int, keep: int, blocks: int) -> Sequence[int]:
        """Return how many tokens each of `blocks` blocks merges, `tokens` - `keep` in all."""
        raise NotImplementedError(f"{type(self).__name__} must implement plan(tokens, keep, blocks)")

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """Return one pruning point, with the plan; none at ratio 1."""
        return tuple(replace(stage, plan=self.plan) for stage in super().schedule(num_layers))
