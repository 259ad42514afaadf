"""Attention probabilities on demand: recomputed from captured module inputs, a block of query rows at a time.

No attention kernel is asked for its weights, so eager, sdpa and flash attention all work, and only the rows a method
looks at are computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uniprune.modeling.adapter import Span, rotate_half

BLOCK = 256
"""Query rows of a decoder per block: bounds memory at heads x BLOCK x context."""
CPU_BYTES, GPU_BYTES = 2**20, 2**25
"""Size of a block of a tower's attention: what a cache holds, so that passing over it several times is cheap."""


@dataclass(frozen=True)
class AttentionCapture:
    """What one decoder self-attention saw in the prefill.

    Attributes:
        module: the attention. layer: its index. hidden: [B, n, D] normalised input. cos, sin: [B or 1, n, d].
        cache: the KV cache, whose keys are already rotated.
    """

    module: Any
    layer: int
    hidden: Tensor
    cos: Tensor
    sin: Tensor
    cache: Any

    def probabilities(self, row: int, queries: Tensor, columns: Tensor, valid: Tensor) -> Iterator[Tensor]:
        """[heads, r, N] attention from positions `queries` [R] to `columns` [N] of batch item `row`, block by block.

        The softmax runs over all earlier valid positions; `valid` is [n].
        """
        keys = self._keys(row)
        position = torch.arange(keys.shape[-2], device=keys.device)
        for block in queries.split(BLOCK):
            query = self._rotate(self._heads(self.module.q_proj(self.hidden[row, block]), "q_norm"), row, block)
            grouped = query.unflatten(0, (keys.shape[0], -1))
            logits = (grouped @ keys[:, None].transpose(-1, -2)).flatten(0, 1) * self.module.scaling
            allowed = (position <= block[:, None]) & valid
            yield logits.float().masked_fill(~allowed, -torch.inf).softmax(-1)[..., columns]

    def keys(self, row: int, positions: Tensor) -> Tensor:
        """[R, key heads * d] rotated keys at `positions` [R] of batch item `row`."""
        return self._keys(row)[:, positions].transpose(0, 1).flatten(1)

    def rotary_prior(self, row: int, queries: Tensor, columns: Tensor) -> Tensor:
        """[R, N] scaled dot product of rotated all-ones vectors at positions `queries` and `columns`."""
        ones = self.cos.new_ones(self.cos.shape[-1], dtype=torch.float32)
        query, key = (self._rotate(ones.expand(len(at), -1), row, at) for at in (queries, columns))
        return query @ key.T * self.module.scaling

    def _keys(self, row: int) -> Tensor:
        """[key heads, n, d] rotated keys: from the cache where it holds plain tensors, else projected again."""
        layer = None if self.cache is None else self.cache.layers[self.layer]
        keys = getattr(layer, "keys", None)
        length = self.hidden.shape[1]
        if isinstance(keys, Tensor) and keys.dim() == 4 and keys.shape[-2] >= length:
            return keys[row, :, :length]
        projected = self._heads(self.module.k_proj(self.hidden[row]), "k_norm")
        return self._rotate(projected, row, torch.arange(length, device=projected.device))

    def _heads(self, x: Tensor, norm: str) -> Tensor:
        """[heads, n, d] from [n, heads * d], normalised where the module does."""
        x = x.unflatten(-1, (-1, self.module.head_dim))
        return getattr(self.module, norm, torch.nn.Identity())(x).transpose(-3, -2)

    def _rotate(self, x: Tensor, row: int, positions: Tensor) -> Tensor:
        item = row if self.cos.shape[0] > 1 else 0
        return x * self.cos[item, positions] + rotate_half(x) * self.sin[item, positions]


def exchanged(query: Tensor, key: Tensor, scale: float, spans: list[Span], skip: int) -> Tensor:
    """[B, S, 2] attention each position emits to, and receives from, the positions of its span; heads averaged.

    The first `skip` positions take part in the softmax but in neither mean (nothing is renormalised); their own two
    values are 0. Arguments as in `received`.
    """
    parts = [query.new_zeros(query.shape[0], skip, 2, dtype=torch.float32)]
    for start, stop in spans:
        first, emitted = max(start, skip), []
        total = query.new_zeros(query.shape[0], stop - first, dtype=torch.float32)
        for block in _attention(query[:, :, first:stop], key[:, :, start:stop], scale):
            weights = block.mean(1)[..., first - start :]
            emitted.append(weights.sum(-1))
            total += weights.sum(1)
        parts.append(torch.stack((torch.cat(emitted, dim=-1), total), dim=-1) / (stop - first))
    return torch.cat(parts, dim=1)


def received(query: Tensor, key: Tensor, scale: float, spans: list[Span]) -> Tensor:
    """[B, S] attention each position receives, mean over heads and over the queries of its span.

    `query` and `key` are [B, heads, S, d] and not yet scaled; `spans` are ranges of S that attend to each other only.
    """
    columns = []
    for start, stop in spans:
        total = query.new_zeros(query.shape[0], stop - start, dtype=torch.float32)
        for block in _attention(query[:, :, start:stop], key[:, :, start:stop], scale):
            total += block.sum(dim=(1, 2))
        columns.append(total / (query.shape[1] * (stop - start)))
    return torch.cat(columns, dim=-1)


def _attention(query: Tensor, key: Tensor, scale: float) -> Iterator[Tensor]:
    """[B, heads, r, n] probabilities in float32 of successive rows of `query` [B, heads, R, d] on `key` [.., n, d]."""
    batch, heads, length = key.shape[:3]
    step = (GPU_BYTES if key.is_cuda else CPU_BYTES) // (4 * batch * heads * length)
    keys, nothing = key.flatten(0, 1).transpose(-1, -2), key.new_empty(1, 1, 1)
    for rows in query.flatten(0, 1).split(max(1, step), dim=1):
        logits = torch.baddbmm(nothing, rows, keys, beta=0, alpha=scale)
        yield logits.softmax(-1, dtype=torch.float32).unflatten(0, (batch, heads))
