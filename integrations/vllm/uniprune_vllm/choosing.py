"""From the tokens of an image to those that stay: UniPrune's own `select`, with UniPrune's own checks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniprune.engine.decisions import choose, settle
from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import keep_count
from uniprune.pruning.view import Grid, Tiles, View, VisionScores
from uniprune.utils.hashing import seeded_generator


@dataclass(frozen=True)
class Kept:
    """What is left of an image.

    Attributes:
        cells: [k] ascending places of the tokens in the image.
        tokens: [k, D] what is in these places.
    """

    cells: Tensor
    tokens: Tensor


class Chooser:
    """A method, called for one image after the other.

    Args:
        pruner: the method.
        num_layers: decoder layers.
    """

    def __init__(self, pruner: Pruner, num_layers: int) -> None:
        self.pruner, self._layers = pruner, num_layers
        self._stage = next(iter(pruner.schedule(num_layers)), None)

    def keep(
        self, tokens: Tensor, grids: Sequence[Grid], vision: VisionScores | None = None, prompt: Tensor | None = None
    ) -> Kept:
        """Return what is left of an image.

        Args:
            tokens: [N, D] its tokens, as the projector made them.
            grids: (t, h, w) of its tiles.
            vision: the vision tower's quantities, for a method that reads them.
            prompt: [M, D] embeddings of the question, for a method that reads it.

        Raises:
            PruningError: the method broke its contract.
        """
        total, stage = len(tokens), self._stage
        whole = torch.arange(total, device=tokens.device)
        if stage is None or stage.keeps_all:
            return Kept(whole, tokens)
        image = digest(tokens)
        view = View(
            tokens=tokens.clone(),
            grids=list(grids),
            layer=0,
            num_layers=self._layers,
            initial=total,
            vision=vision,  # type: ignore[arg-type]  # there where the method declares that it reads it
            tiles=_tiles(grids),
            cells=whole,
            prompt=prompt,  # type: ignore[arg-type]
            text=None,  # type: ignore[arg-type]  # of the language model, which did not run yet
            attention=None,  # type: ignore[arg-type]
            generator=seeded_generator(self.pruner.seed, image, 0, 0),
        )
        answer = choose(stage, image, view, total, keep_count(total, stage.ratio), tokens.shape[1])
        settle([answer])
        chosen = answer.indices[0].long().to(tokens.device)
        order = chosen.argsort()
        made = tokens[chosen] if answer.tokens is None else answer.tokens[0].to(tokens)
        return Kept(chosen[order], made if answer.released else made[order])


def _tiles(grids: Sequence[Grid]) -> Tiles | None:
    """Return the tiles of an image that was cut up; the last one shows the whole image, as in InternVL."""
    sizes = torch.tensor([math.prod(grid) for grid in grids])
    return Tiles(torch.arange(len(sizes)).repeat_interleave(sizes), len(sizes) - 1) if len(sizes) > 1 else None


def digest(tokens: Tensor) -> str:
    """Return a name of an image by its tokens: no row id reaches a model, and an image has one cache entry."""
    rounded = tokens.bfloat16().contiguous().cpu()  # alike in every precision of the model
    return hashlib.sha256(rounded.view(torch.uint8).numpy().tobytes()).hexdigest()
