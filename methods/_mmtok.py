"""MMTok's coverage of one token by another, and the features it compares."""

from __future__ import annotations

from torch import Tensor

from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch


def shares(similarity: Tensor, temperature: float) -> Tensor:
    """[R, N] softmax over the columns of `similarity` [R, N], divided by R."""
    return (similarity / temperature).softmax(-1) / len(similarity)


def tower_features(view: View | ViewBatch) -> Tensor:
    """[..., N, C] features entering the projector, averaged over the patches of a token if they are side by side."""
    features = view.vision.features()
    width = view.vision.hidden(None).shape[-1] if view.vision.patches > 1 else features.shape[-1]
    return features.float().unflatten(-1, (-1, width)).mean(-2) if width < features.shape[-1] else features
