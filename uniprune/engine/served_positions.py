"""Position ids of the tokens that are left, as vLLM assigns them: text after pruned images moves towards these.

No id is computed from scratch: all axes of a token fall by what the images and videos before it no longer take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.token_map import Tokens
from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import TextAfter


def vllm_positions(
    rules: Mapping[int, TextAfter], tokens: Tokens, positions: Tensor | None, after: Tensor, index: Tensor
) -> tuple[Tensor, Tensor]:
    """Return position ids of the tokens that are left, and by how much all later ones fall.

    Args:
        rules: placeholder id -> where text after it continues.
        tokens: the un-pruned prompts.
        positions: [3 or 4, B, L] their position ids, of which the last three are axes.
        after: [3 or 4, B, 1] those of the first generated token.
        index: [B, n] which tokens are left; 0 at padding.

    Returns:
        [3, B, n] position ids, and [B, 1] the decrement. O(B L), without waiting for the device.

    Raises:
        UnsupportedError: the prompts have no ids, by which images and videos differ, or no positions of three axes.
    """
    if positions is None or positions.dim() != 3:
        raise UnsupportedError(
            'positions="vllm" needs position ids of three axes; pass the mm_token_type_ids that the processor returns'
        )
    batch, length = tokens.visual.shape
    every = torch.cat((positions[-3:].expand(3, batch, -1), after[-3:].expand(3, batch, 1)), -1)
    left = torch.zeros(batch, length, dtype=torch.bool, device=index.device).scatter_(1, index, True)
    falls = torch.zeros_like(every[0])
    for row, first, end, rule in _media(rules, tokens):
        own = every[:, row, first:end]
        if rule == "width":
            falls[row, end] = every[0, row, end] - own[2].max() - 1
        elif rule == "kept":
            before_it = every[0, row, first] - 1
            falls[row, end] = every[0, row, end] - own.amax(0).where(left[row, first:end], before_it).max() - 1
    falls = falls.cumsum(1)
    ids = every.gather(2, index.expand(3, -1, -1)) - falls.gather(1, index)
    return ids, falls[:, -1:]


def _media(rules: Mapping[int, TextAfter], tokens: Tokens) -> Iterator[tuple[int, int, int, TextAfter]]:
    """Yield row, first and end column, and rule of every run of placeholders."""
    if tokens.ids is None:
        raise UnsupportedError(
            'positions="vllm" tells images from videos by their ids, but the prompts are embeddings; pass input_ids'
        )
    ids = tokens.ids.numpy()
    for row, marked in enumerate(tokens.visual.numpy().astype(np.int8)):
        edges = np.flatnonzero(np.diff(marked, prepend=0, append=0)).tolist()
        for first, end in zip(edges[::2], edges[1::2], strict=True):
            yield row, first, end, rules[int(ids[row, first])]
