"""FitPrune: delete a fitted number of tokens in every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.errors import UserError
from uniprune.pruning.calibration import Calibration
from uniprune.pruning.fields import Count, NonNegative
from uniprune.pruning.functional import top_k
from uniprune.pruning.schedules import MultiStage, between, site_share
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._fitprune import PUBLISHED, RELEASES, TOKENS, received, resampled, retention
from .calibration.fitprune import RecipeSearch


@register_method(
    "fitprune",
    paper="arXiv 2409.10197",
    code="ywh187/FitPrune",
    deviations=["Paper: a token deleted in layer l still passes its MLP, which changes nothing for the others."],
    releases=RELEASES,
)
@dataclass(frozen=True, kw_only=True)
class FitPrune(MultiStage):
    """Deletes the least attended tokens layer by layer, by a fitted recipe (Ye et al., AAAI 2025, arXiv 2409.10197).

    A token's importance in a layer is its attention from visual rows times that from text rows, heads combined by
    maximum. Recipes are numbers of tokens to delete; `python run.py calibrate fitprune` searches one for a model.

    The ratio is the average share from layer 1 on. With `budget="paper"` it is the share of visual FLOPs left: 0.4 is
    the published recipe "60 %". A recipe of one's own stands for its own average share.

    Cost: all visual and text attention rows of every layer that deletes, as much as the attention itself.

    Args:
        recipe: tokens to delete in each layer; by default as published for LLaVA-1.5-7B, interpolated and stretched.
        recipe_tokens: tokens of an image that `recipe` counts from.
    """

    layer: NonNegative = 1
    recipe: tuple[NonNegative, ...] = ()
    recipe_tokens: Count = TOKENS
    llm_attention: ClassVar[bool] = True
    calibration: ClassVar[type[Calibration]] = RecipeSearch

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers or self.layer != 1:
            raise UserError(f"{type(self).__name__} acts in every layer of its recipe; leave out layer and layers")
        if sum(self.recipe) >= self.recipe_tokens:
            raise UserError(f"the recipe deletes {sum(self.recipe)} of {self.recipe_tokens} tokens; it must leave some")

    def pruning_layers(self, num_layers: int) -> list[int]:
        return list(range(1, num_layers))  # tokens deleted in layer l are missing from layer l + 1 on

    def shares(self, level: float, layers: Sequence[int], num_layers: int) -> list[float]:
        recipes = {level: retention(counts, TOKENS) for level, counts in PUBLISHED.items()}
        if self.recipe:
            own = retention(self.recipe, self.recipe_tokens)
            recipes = {site_share(own[:-1], range(1, len(own)), len(own)): own}
        table = {level: resampled(curve, layers, num_layers) for level, curve in recipes.items()}
        return between({0.0: [0.0] * len(layers), **table, 1.0: [1.0] * len(layers)}, level)

    def select(self, view: View, keep: int) -> Tensor:
        own, cross = received(view.attention.blocks("visual")), received(view.attention.blocks(view.following))
        return top_k(importance(own, cross), keep)


def importance(own: Tensor, cross: Tensor) -> Tensor:
    """[N] mean attention from visual rows times summed attention from text rows."""
    return own / len(own) * cross
