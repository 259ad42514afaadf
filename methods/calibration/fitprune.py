"""FitPrune's search for a recipe: from attention recorded in the un-pruned model to tokens deleted in every layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from uniprune.errors import UserError
from uniprune.pruning.base import Pruner, Stage
from uniprune.pruning.calibration import Calibration, Found
from uniprune.pruning.fields import Share
from uniprune.pruning.schedules import site_share
from uniprune.pruning.view import View

from .._fitprune import received, retention


@dataclass(frozen=True)
class Statistics:
    """Attention that visual tokens received in the un-pruned model.

    Attributes:
        cross: [S, L, N] of S samples and L layers: `received` of the text rows after the image.
        own: [S, L, N] `received` of the visual rows.
        width: hidden size of the decoder.
        inner: hidden size of its MLP.
    """

    cross: Tensor
    own: Tensor
    width: int
    inner: int

    def flops(self, tokens: float) -> float:
        """Return the multiply-adds of one layer on `tokens` visual tokens."""
        return 4 * tokens * self.width**2 + 2 * tokens**2 * self.width + 3 * tokens * self.width * self.inner

    def deletions(self, alpha: float, budget: float) -> tuple[list[int], bool]:
        """Count tokens to delete per layer if each may lose a share `alpha` of both sums, until FLOPs fit `budget`.

        In every sample, the least attended tokens go first; those that both sums can spare are deleted. Counts are
        means over samples, rounded down.

        Returns:
            One count per layer, and whether the budget was met.
        """
        samples, layers, tokens = self.cross.shape
        alive = torch.ones(samples, tokens, dtype=torch.bool, device=self.cross.device)
        left, spent = tokens, 0.0
        counts = [0] * layers
        for layer in range(layers):
            doomed = alive
            for attention in (self.cross[:, layer], self.own[:, layer]):
                doomed = doomed & _expendable(attention, alive, alpha)
            counts[layer] = int(doomed.sum()) // samples
            alive = alive & ~doomed
            spent += self.flops(left)
            left -= counts[layer]
            if spent + (layers - layer - 1) * self.flops(left) <= budget:
                return counts, True
        return counts, False

    def search(self, left: float, precision: float = 0.01) -> list[int]:
        """Return the mildest recipe (smallest alpha) that leaves at most a share `left` of the visual FLOPs.

        Raises:
            UserError: no recipe does, as every token enters layer 0.
        """
        budget = left * self.cross.shape[1] * self.flops(self.cross.shape[2])
        best, met = self.deletions(1.0, budget)
        if not met:
            raise UserError(
                f"no recipe leaves {left:g} of the FLOPs on visual tokens, as all of them enter layer 0; "
                f"allow more than 1 / layers, --search flops={1.5 / self.cross.shape[1]:.2g}"
            )
        low, high = 0.0, 1.0
        while high - low > precision:
            alpha = (low + high) / 2
            counts, met = self.deletions(alpha, budget)
            if met:
                best, high = counts, alpha
            else:
                low = alpha
        return best


def _expendable(attention: Tensor, alive: Tensor, alpha: float) -> Tensor:
    """[S, N] True at the most living tokens, least attended first, without which (1 - alpha) of the sum remains."""
    order = attention.masked_fill(~alive, torch.inf).argsort(dim=1, stable=True)
    slack = (attention * alive).sum(1, keepdim=True) - (1 - alpha) * attention.sum(1, keepdim=True)
    ranked = (attention * alive).gather(1, order).cumsum(1) <= slack
    return torch.zeros_like(alive).scatter(1, order, ranked & alive.gather(1, order))


@dataclass(frozen=True, kw_only=True)
class Recorder(Pruner):
    """Keeps everything and records, image by image, the attention that visual tokens receive in every layer.

    Attributes:
        seen: per image, one pair [N] (from text rows, from visual rows) for each layer.
    """

    seen: list[list[tuple[Tensor, Tensor]]] = field(default_factory=list)
    upcoming_attention: ClassVar[bool] = True

    @property
    def exact(self) -> bool:
        """False, so that `select` is called although all tokens stay."""
        return False

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """Return a stage for every layer."""
        return tuple(Stage(layer, 1.0, self) for layer in range(num_layers))

    def select(self, view: View, keep: int) -> Tensor:
        """Record, and keep everything."""
        if "layers" not in view.scratch:
            view.scratch["layers"] = []
            self.seen.append(view.scratch["layers"])
        cross, own = received(view.upcoming.blocks(view.following)), received(view.upcoming.blocks("visual"))
        view.scratch["layers"].append((cross.cpu(), own.cpu()))
        return torch.arange(len(view.tokens))


@dataclass(frozen=True, kw_only=True)
class RecipeSearch(Calibration):
    """The paper's search: the mildest recipe within a budget of FLOPs, from attention in the un-pruned model.

    Args:
        flops: share of the language model's FLOPs on visual tokens to leave; the paper's "60 %" is 0.4.
    """

    flops: Share = 0.4
    decides: ClassVar[frozenset[str]] = frozenset({"flops"})

    @torch.no_grad()
    def observe(self, model: Any, inputs: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Return, by number, [2, L, N] of every image: attention received in each layer from text and from visual rows.

        `sizes` [2] are the widths of the decoder and of its MLP.
        """
        from uniprune.engine import prune  # loads transformers, which naming the method does not need

        config, recorder = model.get_decoder().config, Recorder()
        with prune(model, recorder):
            model(**inputs)
        images = {str(i): torch.stack(list(map(torch.stack, layers)), 1) for i, layers in enumerate(recorder.seen)}
        return {"sizes": torch.tensor([config.hidden_size, config.intermediate_size]), **images}

    def result(self, seen: Sequence[Mapping[str, Tensor]]) -> Found:
        """Return the recipe, from the images of the commonest size.

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
