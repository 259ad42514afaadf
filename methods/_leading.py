"""Tokens that are not those of one place: they take places of tokens that go."""

from __future__ import annotations

import torch
from torch import Tensor

from uniprune.pruning.base import Selection
from uniprune.pruning.functional import at_least_float32, complement
from uniprune.pruning.view import Space, View


def following(head: Tensor, picks: Tensor, tokens: Tensor) -> Selection:
    """Return `picks` [k] of `tokens` [N, D] after the tokens `head` [h, D], which take the first free places."""
    if not len(head):
        return Selection(picks)
    free = complement(len(tokens), picks)[: len(head)]
    return Selection(torch.cat((free, picks)), torch.cat((head.to(tokens), tokens[picks])))


def with_mean(view: View, picks: Tensor, space: Space) -> Selection:
    """Return `picks` [k] in raster order, and after them the mean of all other tokens, which takes their last place.

    The mean is one of features of the space.
    """
    best = picks.sort().values
    others = complement(len(view.tokens), best)
    mean = at_least_float32(view.features(space))[others].mean(0, keepdim=True)
    tokens = torch.cat((view.tokens[best], view.project(mean, space).to(view.tokens)))
    return Selection(torch.cat((best, others[-1:])), tokens)
