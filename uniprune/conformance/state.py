"""Snapshots of environment, model and method state, to verify that `select` has no side effects."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from uniprune.modeling.tiny import LAYERS
from uniprune.pruning.base import Pruner

State = Mapping[str, Mapping[str, Any]]
"""Group -> name -> a value that can be compared."""
PLAIN = (int, float, str, list, dict, set, tuple, type(None))


def snapshot(model: Any, pruner: Pruner) -> State:
    """Return the present state of environment, model and method."""
    return {
        "environment": {"environment variables": dict(os.environ)},
        "model": weights(model),
        "method": memory(pruner),
    }


def changes(before: State, after: State, group: str) -> list[str]:
    """Return the names that differ in one group."""
    return [name for name, value in before[group].items() if after[group][name] != value]


def weights(model: Any) -> dict[str, Any]:
    """Return weights (as addresses and sums), hooks, replaced forwards, modes and gradients of the model."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {
        "weights": {name: (t.data_ptr(), float(t.detach().double().sum())) for name, t in tensors},
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "forwards": [name for name, m in model.named_modules() if "forward" in vars(m)],
        "modes": [m.training for m in model.modules()],
        "gradients": [(p.requires_grad, p.grad is None) for p in model.parameters()],
    }


def memory(pruner: Pruner) -> dict[str, str]:
    """Return the plain values in object, class and module of the method and of all pruners of its schedule."""
    parts = {id(one): one for one in (pruner, *(stage.pruner for stage in pruner.schedule(LAYERS)))}
    return {
        f"{type(one).__name__} {number}": repr(
            [
                {name: value for name, value in owner.items() if isinstance(value, PLAIN) and name[:2] != "__"}
                for owner in (vars(one), vars(type(one)), vars(sys.modules[type(one).__module__]))
            ]
        )
        for number, one in enumerate(parts.values())
    }


@contextmanager
def scrambled_randomness(seed: int) -> Iterator[None]:
    """Replace all global random states inside the block; restore them afterwards."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
