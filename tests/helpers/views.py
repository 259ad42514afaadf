"""A `View` without a model, and what the engine makes of one decision on it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from uniprune.engine.views import choose, settle
from uniprune.pruning.base import Pruner, Selection, Stage
from uniprune.pruning.view import View


def make_view(tokens: Tensor, **given: Any) -> View:
    """A view of `tokens` [N, D] as one 1 x N image before layer 0; `given` replaces any other attribute."""
    count, width = tokens.shape
    defaults: dict[str, Any] = {
        "grids": [(1, 1, count)],
        "cells": torch.arange(count),
        "layer": 0,
        "num_layers": 32,
        "initial": count,
        "prompt": tokens.new_zeros(0, width),
        "text": tokens.new_zeros(0, width),
        "generator": torch.Generator().manual_seed(0),
        "attention": None,
        "vision": None,
    }
    return View(tokens=tokens, **defaults | given)


def decide(pruner: Pruner, view: View, keep: int) -> Selection:
    """Checked and sorted answer of a method, in the order that its field `order` names, as the engine applies it."""
    return settle([choose(Stage(view.layer, 1.0, pruner), "0", 0, view, keep)])[0].selection
