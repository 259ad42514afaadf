"""Tokens that stand for more than one place of an image, among those that are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from uniprune.pruning.base import Selection
from uniprune.pruning.functional import complement


def following(head: Tensor, picks: Tensor, tokens: Tensor) -> Selection:
    """Return `picks` [k] of `tokens` [N, D] after the tokens `head` [h, D], which take the first free places."""
    if not len(head):
        return Selection(picks)
    free = complement(len(tokens), picks)[: len(head)]
    return Selection(torch.cat((free, picks)), torch.cat((head.to(tokens), tokens[picks])))
