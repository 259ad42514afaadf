"""Layers and output heads that run on the last tokens of a prompt only.

Layers at the end of some decoders have no keys of their own: they reuse those of an earlier layer of their kind. What
they compute for other tokens than the last nobody reads, so `generate` gives them the last token alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import ModelAdapter


def check_reused(adapter: ModelAdapter, layers: list[int], name: str) -> None:
    """Refuse pruning after the first layer whose keys are reused: those who reuse them would still see what was pruned.

    Args:
        adapter: the model's adapter.
        layers: where the method prunes.
        name: the method.

    Raises:
        UnsupportedError: naming the layers.
    """
    reusing, kinds = adapter.reusing, adapter.kinds
    if not reusing:
        return
    own = kinds[: reusing.start]
    reused = sorted(len(own) - 1 - own[::-1].index(kind) for kind in set(kinds[reusing.start :]))
    beyond = [layer for layer in layers if layer > reused[0]]
    if beyond:
        raise UnsupportedError(
            f"{name} prunes at layers {beyond}, but layers {reusing.start} to {reusing.stop - 1} reuse the keys of "
            f"layers {reused}, which hold what is pruned after layer {reused[0]}; prune at layer {reused[0]} or before"
        )


def for_last(arguments: dict[str, Any], queries: int) -> dict[str, Any]:
    """Return a layer's arguments for the last `queries` of the tokens for which `arguments` are."""
    mask, tables = arguments["attention_mask"], arguments.get("position_embeddings", ())
    last = arguments | ({"position_embeddings": tuple(table[:, -queries:] for table in tables)} if tables else {})
    if mask is not None:
        return last | {"attention_mask": mask[:, :, -queries:]}
    if queries > 1 and tables:  # the kernel's own causal mask would begin with the first token
        width = tables[0].shape[1]
        seen = torch.ones(queries, width, dtype=torch.bool, device=tables[0].device).tril(width - queries)
        return last | {"attention_mask": seen[None, None]}
    return last


def cut_output(output: Any, wanted: Any) -> None:
    """Cut a model's output to the `wanted` last tokens, if it was to do so: it compares lengths with the prompt's ids.

    With fewer tokens than ids it would leave them all, and the output head would run on each.
    """
    states = getattr(output, "last_hidden_state", None)
    if isinstance(wanted, int) and wanted > 0 and isinstance(states, Tensor):
        output.last_hidden_state = states[:, -wanted:]
