"""Shared by methods that merge the tokens of a video's segments."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from uniprune.pruning.clustering import density_peaks
from uniprune.pruning.fields import Count

from ._video import OfVideo


@dataclass(frozen=True, kw_only=True)
class OfSegments(OfVideo):
    """A method that cuts a video into segments of frames that are alike, and merges tokens of each."""

    segments: Count = 8
    vision_layer: int | None = None

    def draws(self) -> torch.Generator | None:
        """Return the source of the noise that breaks ties of densities; None breaks them towards the lower index.

        Always the same noise: it is no choice of the method, and no reason for several runs.
        """
        return None if self.exact else torch.Generator().manual_seed(0)

    def budgets(self, keep: int, steps: int, size: int) -> list[int]:
        """Return the budgets of `steps` frames of `size` tokens: `keep` in all, spread evenly, or as released."""
        if not self.exact:
            return [self.released(size)] * steps
        return [keep * (step + 1) // steps - keep * step // steps for step in range(steps)]

    def released(self, size: int) -> int:
        """Return the released budget of a frame of `size` tokens."""
        raise NotImplementedError


def runs(alike: Tensor, threshold: float, least: int = 1) -> list[tuple[int, int]]:
    """Return (first, end) of the runs of frames that are alike.

    Args:
        alike: [T - 1] likeness of every frame and the next.
        threshold: frames less alike than this are parted.
        least: number of runs that the least alike frames are parted for, if there are as many frames.
    """
    cuts = alike < threshold
    cuts[alike.argsort(stable=True)[: least - 1]] = True
    ends = [0, *(cuts.nonzero()[:, 0] + 1).tolist(), len(alike) + 1]
    return list(pairwise(ends))


def likenesses(x: Tensor) -> Tensor:
    """[T - 1] cosine between the mean tokens of every two successive frames of `x` [T, F, D], on the CPU."""
    means = x.mean(1)
    return F.cosine_similarity(means[1:], means[:-1], dim=-1).cpu()


def clusters(tokens: Tensor, count: int, neighbours: int, draws: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Return the centres and the cluster of every token [N, D]: see `density_peaks`.

    Args:
        tokens: the tokens.
        count: number of clusters.
        neighbours: how many distances make a density.
        draws: see `OfSegments.draws`; noise is up to 1e-6.
    """
    noise = None if draws is None else torch.rand(len(tokens), generator=draws).to(tokens) * 1e-6
    return density_peaks(tokens, count, noise, neighbours)
