"""FitPrune: delete a fitted number of tokens in every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.errors import UserError
from uniprune.pruning.calibration import Calibration
from uniprune.pruning.functional import top_k
from uniprune.pruning.schedules import MultiStage, between, site_share
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._fitprune import PUBLISHED, TOKENS, resampled, retention
from ._fitprune_search import RecipeSearch, received


@register_method("fitprune", paper="arXiv 2409.10197")
@dataclass(frozen=True, kw_only=True)
class FitPrune(MultiStage):
    """Deletes the least attended tokens layer by layer, by a fitted recipe (Ye et al., AAAI 2025, arXiv 2409.10197).

    A token's importance in a layer is what visual rows give it times what text rows give it, heads combined by maximum.
    Recipes say how many tokens to delete where; `python run.py calibrate fitprune` searches one for a model.

    Args:
        recipe: tokens to delete in each layer of this very model out of `recipe_tokens`; by default the published
            recipes of LLaVA-1.5-7B, interpolated in budget and stretched to the depth.
        recipe_tokens: tokens of an image that `recipe` counts from.

    Budget: the average share from layer 1 on. With `budget="paper"` it is the share of visual FLOPs left: 0.4 is the
    published recipe "60 %". A recipe of one's own stands for its own average share.

    Differs from the paper in: a token deleted in layer l still passes that layer's MLP, which changes nothing for the
    others. Differs from the release in: nothing else; UniPruneBench's port keeps the least important tokens. Cost: all
    visual and text attention rows of every layer that deletes, which is as much as the attention itself.
    """

    layer: int = 1
    recipe: tuple[int, ...] = ()
    recipe_tokens: int = TOKENS
    llm_attention: ClassVar[bool] = True
    calibration: ClassVar[type[Calibration]] = RecipeSearch

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers or self.layer != 1:
            raise UserError(f"{type(self).__name__} acts in every layer of its recipe; leave out layer and layers")
        if min(self.recipe, default=0) < 0 or sum(self.recipe) >= self.recipe_tokens:
            raise UserError(f"the recipe deletes {sum(self.recipe)} of {self.recipe_tokens} tokens; it must leave some")

    def pruning_layers(self, num_layers: int) -> list[int]:
        """Every layer but the first: deleting in layer l is seen by layer l + 1."""
        return list(range(1, num_layers))

    def shares(self, level: float, layers: Sequence[int], num_layers: int) -> list[float]:
        """Retention curves of the recipes around `level`, interpolated."""
        recipes = {level: retention(counts, TOKENS) for level, counts in PUBLISHED.items()}
        if self.recipe:
            own = retention(self.recipe, self.recipe_tokens)
            recipes = {site_share(own[:-1], range(1, len(own)), len(own)): own}
        table = {level: resampled(curve, layers, num_layers) for level, curve in recipes.items()}
        return between({0.0: [0.0] * len(layers), **table, 1.0: [1.0] * len(layers)}, level)

    def select(self, view: View, keep: int) -> Tensor:
        """The most important tokens by all rows of layer K - 1."""
        own, cross = received(view.attention.blocks("visual")), received(view.attention.blocks(view.following))
        return top_k(importance(own, cross), keep)


def importance(own: Tensor, cross: Tensor) -> Tensor:
    """[N] mean attention received from visual rows times summed attention received from text rows."""
    return own / len(own) * cross
