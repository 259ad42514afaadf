"""FitPrune's search for a recipe: from attention recorded in the un-pruned model to tokens deleted in every layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from uniprune.errors import UserError
from uniprune.pruning.base import Pruner, Stage
from uniprune.pruning.calibration import Found
from uniprune.pruning.schedules import site_share
from uniprune.pruning.validation import check_within
from uniprune.pruning.view import View

from ._fitprune import retention


def received(blocks: Iterable[Tensor]) -> Tensor:
    """[N] sum over rows of the largest probability over heads, from blocks [heads, r, N] of attention rows."""
    return torch.stack([block.amax(0).sum(0) for block in blocks]).sum(0)


@dataclass(frozen=True)
class Statistics:
    """Attention that visual tokens received in the un-pruned model.

    Attributes:
        cross, own: [S, L, N] of S samples and L layers: sum over the text rows behind the image, and over the visual
            rows, of the largest probability over heads. See `received`.
        width, inner: hidden size of the decoder and of its MLP.
    """

    cross: Tensor
    own: Tensor
    width: int
    inner: int

    def flops(self, tokens: float) -> float:
        """Multiply-adds of one layer on `tokens` visual tokens."""
        return 4 * tokens * self.width**2 + 2 * tokens**2 * self.width + 3 * tokens * self.width * self.inner

    def deletions(self, alpha: float, budget: float) -> tuple[list[int], bool]:
        """Tokens to delete in every layer if each may lose a share `alpha` of both sums, until the FLOPs fit `budget`.

        In every sample, the least attended tokens go first; what both sums allow to delete is deleted. Counts are means
        over samples, rounded down.

        Returns:
            One count per layer, and whether the budget was met.
        """
        samples, layers, tokens = self.cross.shape
        alive = torch.ones(samples, tokens, dtype=torch.bool, device=self.cross.device)
        left, spent = tokens, 0.0
        counts = [0] * layers
        for layer in range(layers):
            doomed = alive
            for received in (self.cross[:, layer], self.own[:, layer]):
                doomed = doomed & _expendable(received, alive, alpha)
            counts[layer] = int(doomed.sum()) // samples
            alive = alive & ~doomed
            spent += self.flops(left)
            left -= counts[layer]
            if spent + (layers - layer - 1) * self.flops(left) <= budget:
                return counts, True
        return counts, False

    def search(self, left: float, precision: float = 0.01) -> list[int]:
        """The mildest recipe (smallest alpha) that leaves at most a share `left` of the visual FLOPs.

        Raises:
            UserError: no recipe does, as layer 0 sees every token.
        """
        budget = left * self.cross.shape[1] * self.flops(self.cross.shape[2])
        best, met = self.deletions(1.0, budget)
        if not met:
            raise UserError(f"no recipe leaves {left:g} of the FLOPs on visual tokens, for layer 0 sees all of them")
        low, high = 0.0, 1.0
        while high - low > precision:
            alpha = (low + high) / 2
            counts, met = self.deletions(alpha, budget)
            if met:
                best, high = counts, alpha
            else:
                low = alpha
        return best


def _expendable(received: Tensor, alive: Tensor, alpha: float) -> Tensor:
    """[S, N] True at the most living tokens, least attended first, without which (1 - alpha) of the sum remains."""
    order = received.masked_fill(~alive, torch.inf).argsort(dim=1, stable=True)
    slack = (received * alive).sum(1, keepdim=True) - (1 - alpha) * received.sum(1, keepdim=True)
    ranked = (received * alive).gather(1, order).cumsum(1) <= slack
    return torch.zeros_like(alive).scatter(1, order, ranked & alive.gather(1, order))


@dataclass(frozen=True, kw_only=True)
class Recorder(Pruner):
    """Keeps everything and notes, image by image, what every layer's attention gives the visual tokens.

    Attributes:
        seen: per image, one pair [N] (from text rows, from visual rows) for each layer.
    """

    seen: list[list[tuple[Tensor, Tensor]]] = field(default_factory=list)
    exact: ClassVar[bool] = False
    upcoming_attention: ClassVar[bool] = True

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """Every layer, so that each is asked about the tokens that arrive there."""
        return tuple(Stage(layer, 1.0, self) for layer in range(num_layers))

    def select(self, view: View, keep: int) -> Tensor:
        """Everything."""
        if "layers" not in view.scratch:
            view.scratch["layers"] = []
            self.seen.append(view.scratch["layers"])
        cross, own = received(view.upcoming.blocks(view.following)), received(view.upcoming.blocks("visual"))
        view.scratch["layers"].append((cross.cpu(), own.cpu()))
        return torch.arange(len(view.tokens))


@dataclass
class RecipeSearch:
    """The paper's search: the mildest recipe within a budget of FLOPs, from attention in the un-pruned model.

    Args:
        flops: share of the language model's FLOPs on visual tokens to leave; the paper's "60 %" is 0.4.
    """

    flops: float = 0.4
    decides: ClassVar[frozenset[str]] = frozenset({"flops"})

    def __post_init__(self) -> None:
        check_within("flops", self.flops, 0, 1)

    @torch.no_grad()
    def observe(self, model: Any, inputs: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """By number, [2, L, N] of every image: what its tokens get in each layer, from text rows and from visual rows.

        `sizes` [2] are the widths of the decoder and of its MLP.
        """
        from uniprune.engine import prune  # loads transformers, which naming the method does not need

        config, recorder = model.get_decoder().config, Recorder()
        with prune(model, recorder):
            model(**inputs)
        images = {str(i): torch.stack(list(map(torch.stack, layers)), 1) for i, layers in enumerate(recorder.seen)}
        return {"sizes": torch.tensor([config.hidden_size, config.intermediate_size]), **images}

    def result(self, seen: Sequence[Mapping[str, Tensor]]) -> Found:
        """The recipe, from the images of the commonest size.

        Raises:
            UserError: no recipe leaves so few FLOPs.
        """
        images = [values for one in seen for name, values in one.items() if name != "sizes"]
        sizes = Counter(values.shape[-1] for values in images)
        tokens, count = sizes.most_common(1)[0]
        cross, own = torch.stack([values for values in images if values.shape[-1] == tokens], dim=1)
        width, inner = seen[0]["sizes"].tolist()
        recipe = Statistics(cross, own, width, inner).search(self.flops)
        shares = retention(recipe, tokens)
        ratio = site_share(shares[:-1], range(1, len(shares)), len(shares))
        summary = (
            f"of {tokens} tokens delete {recipe} in the layers, {sum(recipe)} in all, from {count} images"
            + f" ({sizes.total() - count} of other sizes were left out)" * (len(sizes) > 1)
        )
        settings = {"recipe": recipe, "recipe_tokens": tokens}
        return Found(ratio, settings, summary, {"images": dict(sizes), "flops": self.flops})
