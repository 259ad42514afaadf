"""Memory: after a prefill the cache holds the bytes of the tokens that are left, and nothing else is kept."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from transformers import DynamicCache

from tests.helpers.pruners import KINDS, Plan
from tests.helpers.tiny import FAMILIES, WINDOWED, build, inputs
from uniprune.engine import prune
from uniprune.engine.compaction import active, cached_layers, held_layers

pytestmark = pytest.mark.end_to_end

CASES = [
    pytest.param(family, kind, marks=() if family == "llava" else pytest.mark.exhaustive)
    for family in FAMILIES
    for kind in KINDS
    if not (kind == "compact" and family.startswith("qwen"))
]
family_and_kind = pytest.mark.parametrize(("family", "kind"), CASES)


def tensors(cache: Any) -> list[Tensor]:
    """Return the keys and values of every layer."""
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


def storages(values: Any) -> dict[int, int]:
    """Return address -> bytes of the storages of all tensors in nested `values`."""
    found = [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
    return {storage.data_ptr(): storage.nbytes() for storage in found}


@contextmanager
def outputs(model: Any) -> Iterator[list[weakref.ref[Tensor]]]:
    """Collect references that keep nothing alive to what enters and leaves every module inside the block."""
    found: list[weakref.ref[Tensor]] = []

    def note(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        held = [leaf for leaf in tree_leaves((args, kwargs, output)) if isinstance(leaf, Tensor)]
        found.extend(map(weakref.ref, held))

    handles = [module.register_forward_hook(note, with_kwargs=True) for module in model.modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@family_and_kind
def test_the_cache_takes_the_bytes_of_the_tokens_that_are_left(family: str, kind: str) -> None:
    """Storages, not shapes: a view of the un-pruned keys would keep them all."""
    model, x, cache = build(family), inputs(family, (1, 2)), DynamicCache()
    with prune(model, KINDS[kind]) as session, torch.no_grad():
        model(**x, past_key_values=cache, use_cache=True)
    sizes = cached_layers(held_layers(cache))
    assert sizes is not None
    assert sum(storages(tensors(cache)).values()) == 2 * sum(size.token * size.columns for size in sizes)
    stages = [active(session.reports[0].cached, layer) for layer in range(len(sizes))]
    assert [size.columns for size in sizes] == [
        x["input_ids"].shape[1] if stage is None else stage.index.shape[1] for stage in stages
    ]


@pytest.mark.parametrize(
    "family", [WINDOWED[0], *(pytest.param(one, marks=pytest.mark.exhaustive) for one in WINDOWED[1:])]
)
def test_windows_hold_no_more_than_themselves_from_the_first_step_on(family: str) -> None:
    """In the prefill transformers stores a view of all keys, with and without pruning."""
    model, x = build(family, "eager"), inputs(family, (1, 2))
    with prune(model, Plan(plan={0: 0.6, 3: 0.3})), torch.no_grad():
        out = model(**x, use_cache=True)
        model(input_ids=x["input_ids"][:, -1:], past_key_values=out.past_key_values)
    windowed = [layer for layer in out.past_key_values.layers if layer.is_sliding]
    assert windowed
    for layer in windowed:
        batch, heads, count, width = layer.keys.shape
        room = min(count + 1, layer.sliding_window)
        assert layer.keys.untyped_storage().nbytes() == batch * heads * room * width * layer.keys.element_size()


@family_and_kind
def test_nothing_keeps_what_was_pruned(family: str, kind: str) -> None:
    """Neither session nor report nor cache holds hidden states, features or keys of the forward."""
    model, x = build(family), inputs(family, (1, 2))
    with prune(model, KINDS[kind]) as session, torch.no_grad():
        with outputs(model) as passed:
            out = model(**x, use_cache=True)
        gc.collect()
        own = [*model.parameters(), *model.buffers(), *tensors(out.past_key_values)]
        kept = storages((x, out.logits, out.get("image_hidden_states"), own))
        alive = [tensor for tensor in (reference() for reference in passed) if tensor is not None]
        left = [t.shape for t in alive if t.untyped_storage().data_ptr() not in kept]
        assert left == []
        assert len(passed) > 100
    assert session.reports[0].pruned
