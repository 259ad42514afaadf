"""Attention of the decoder on demand: recomputed from captured module inputs, a block of query rows at a time.

No attention kernel has to return its weights, so eager, sdpa and flash attention all work, and only the rows a method
reads are computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from uniprune.engine.layer_kinds import rotation

BLOCK = 256
"""Query rows per block: bounds memory at heads x BLOCK x context."""


@dataclass(frozen=True)
class AttentionCapture:
    """Inputs of one decoder self-attention in the prefill.

    Attributes:
        module: the attention.
        layer: its index.
        hidden: [B, n, D] normalised input.
        cos: [B or 1, n, d] rotary cosines, for all or a part of a head.
        sin: [B or 1, n, d] rotary sines.
        cache: the KV cache, whose keys are already rotated; None to project keys again.
        mask: the mask that the layer is called with, in the format of its kernel; None for a causal one.
    """

    module: Any
    layer: int
    hidden: Tensor
    cos: Tensor
    sin: Tensor
    cache: Any
    mask: Any

    def probabilities(self, row: int, queries: Tensor, columns: Tensor, valid: Tensor | None) -> Iterator[Tensor]:
        """Yield [heads, r, N] attention from positions `queries` [R] to `columns` [N] of batch item `row`, by blocks.

        The softmax runs over the positions that the layer's own mask allows, and over the layer's sinks, if it has
        some; without a mask of pairs, over all earlier valid positions. `valid` is [n], None if all are.
        """
        keys = self._keys(row)
        position = torch.arange(keys.shape[-2], device=keys.device)
        for block in queries.split(BLOCK):
            query = self._rotate(self._queries(self.hidden[row, block]), row, block)
            logits = _products(query, keys) * self.module.scaling
            later = position > block[:, None]
            logits = self._masked(logits.float(), row, block, later if valid is None else later | ~valid)
            yield self._with_sinks(logits, 0).softmax(-1)[..., columns]

    def last(self, queries: Tensor | None, columns: Tensor, owners: Tensor | None, valid: Tensor | None) -> Tensor:
        """Return [P, heads, N] attention from the last token of several batch items, as `probabilities`.

        Args:
            queries: [B] column of each item's last token, None where it is the last column of all.
            columns: [P, N] columns in their rows.
            owners: [P] the batch item of each, None if P is B.
            valid: [B, n] False at padding, None without padding.
        """
        batch, length = self.hidden.shape[:2]
        if queries is None:
            hidden, tables = self.hidden[:, -1], [table[:, length - 1] for table in (self.cos, self.sin)]
        else:
            items = torch.arange(batch, device=queries.device)
            hidden = self.hidden[items, queries]
            tables = [table[items if len(table) > 1 else 0, queries] for table in (self.cos, self.sin)]
        # The items stand where positions of one item do otherwise: [1, heads, B, d].
        query = rotation(self.module)(self._queries(hidden)[None], *(table[None] for table in tables))[0]
        keys = self._all_keys()
        grouped = query.unflatten(0, (keys.shape[1], -1)).permute(2, 0, 1, 3)
        logits = ((grouped @ keys.transpose(-1, -2)) * self.module.scaling).flatten(1, 2).float()
        logits = self._masked_last(logits, queries, valid)
        weights = self._with_sinks(logits, 1).softmax(-1)
        weights = weights if owners is None else weights[owners]
        return weights.gather(2, columns[:, None].expand(-1, weights.shape[1], -1))

    def _masked_last(self, logits: Tensor, queries: Tensor | None, valid: Tensor | None) -> Tensor:
        """Return `logits` [B, heads, n] of the last tokens under the layer's mask; all valid tokens precede them."""
        if not isinstance(self.mask, Tensor) or self.mask.dim() != 4:
            return logits if valid is None else logits.masked_fill(~valid[:, None], -torch.inf)
        mask, length = self.mask.to(logits.device), logits.shape[-1]
        if queries is None:
            own = mask[:, :, self.hidden.shape[1] - 1, :length]
        else:
            items = torch.arange(len(logits), device=logits.device)
            own = mask.expand(len(logits), -1, -1, -1)[items, :, queries, :length]
        return logits.masked_fill(~own, -torch.inf) if own.dtype == torch.bool else logits + own.float()

    def _all_keys(self) -> Tensor:
        """Return [B, key heads, n, d] rotated keys of all batch items."""
        if self._cached is not None:
            return self._cached[:, :, : self.hidden.shape[1]]
        projected = self._heads(self.module.k_proj(self.hidden), "k_norm")
        rotated: Tensor = rotation(self.module)(projected, self.cos, self.sin)
        return rotated

    def keys(self, row: int, positions: Tensor) -> Tensor:
        """Return [R, key heads * d] rotated keys at `positions` [R] of batch item `row`."""
        return self._keys(row)[:, positions].transpose(0, 1).flatten(1)

    @property
    def kept_keys(self) -> bool:
        """Return whether the keys are those of a cache, which are read, not computed."""
        return self._cached is not None

    def keys_of(self, rows: Tensor, positions: Tensor) -> Tensor:
        """Return [P, R, key heads * d] rotated keys at `positions` [P, R] of batch items `rows` [P]."""
        return self._all_keys()[rows[:, None], :, positions].flatten(2)

    def rotary_prior(self, row: int, queries: Tensor, columns: Tensor) -> Tensor:
        """Return [R, N] scaled dot products of rotated all-ones vectors at positions `queries` and `columns`."""
        ones = self.cos.new_ones(self.module.head_dim, dtype=torch.float32)
        query, key = (self._rotate(ones.expand(len(at), -1), row, at) for at in (queries, columns))
        prior: Tensor = query @ key.T * self.module.scaling
        return prior

    def _queries(self, hidden: Tensor) -> Tensor:
        """Return [heads, n, d] queries of `hidden` [n, D], before rotation."""
        projected, inner = self.module.q_proj(hidden), self.module.o_proj.in_features
        if projected.shape[-1] == 2 * inner:  # every query is followed by its gate
            projected = projected.unflatten(-1, (-1, 2, self.module.head_dim))[..., 0, :].flatten(-2)
        return self._heads(projected, "q_norm")

    def _masked(self, logits: Tensor, row: int, queries: Tensor, unseen: Tensor) -> Tensor:
        """Return `logits` [heads, r, n] of positions `queries` [r] under the layer's mask.

        Without a mask of pairs, `unseen` [r, n] are left out.
        """
        if not isinstance(self.mask, Tensor) or self.mask.dim() != 4:
            return logits.masked_fill_(unseen, -torch.inf)
        own = self.mask[row if len(self.mask) > 1 else 0].to(logits.device)[:, queries, : logits.shape[-1]]
        return logits.masked_fill(~own, -torch.inf) if own.dtype == torch.bool else logits + own.float()

    def _with_sinks(self, logits: Tensor, heads: int) -> Tensor:
        """Return `logits` [..., n], and one more of each row, of no token, where the layer has sinks.

        `heads` is the dimension of heads.
        """
        sinks = getattr(self.module, "sinks", None)
        if sinks is None:
            return logits
        learned = sinks.float().view([-1 if place == heads else 1 for place in range(logits.dim())])
        return torch.cat((logits, learned.expand(*logits.shape[:-1], 1)), dim=-1)

    def _keys(self, row: int) -> Tensor:
        """Return [key heads, n, d] rotated keys: from the cache where it holds plain tensors, else projected again."""
        length = self.hidden.shape[1]
        if self._cached is not None:
            return self._cached[row, :, :length]
        projected = self._heads(self.module.k_proj(self.hidden[row]), "k_norm")
        return self._rotate(projected, row, torch.arange(length, device=projected.device))

    @cached_property
    def _cached(self) -> Tensor | None:
        """[B, key heads, >= n, d] keys in the cache when first read: eviction replaces them after the prefill."""
        layer = None if self.cache is None else self.cache.layers[self.layer]
        keys = getattr(layer, "keys", None)
        # Keys of a quantised cache are held otherwise, those of an offloaded one are elsewhere.
        if not isinstance(keys, Tensor) or keys.dim() != 4 or keys.device != self.hidden.device:
            return None
        return keys if keys.shape[-2] >= self.hidden.shape[1] else None

    def _heads(self, x: Tensor, norm: str) -> Tensor:
        """Return [heads, n, d] from [n, heads * d], normalised where the module does."""
        x = x.unflatten(-1, (-1, self.module.head_dim))
        normalise = getattr(self.module, norm, None)
        heads: Tensor = x if normalise is None else normalise(x)
        return heads.transpose(-3, -2)

    def _rotate(self, x: Tensor, row: int, positions: Tensor) -> Tensor:
        """Return [..., n, d] heads rotated as the model does."""
        item = row if self.cos.shape[0] > 1 else 0
        cos, sin = (table[item : item + 1, positions] for table in (self.cos, self.sin))
        heads = x.reshape(1, -1, *x.shape[-2:])
        return rotation(self.module)(heads, cos, sin).view(x.shape)


def _products(query: Tensor, keys: Tensor) -> Tensor:
    """Return [heads, r, n] products of queries [heads, r, d] and keys [key heads, n, d], which heads in a row share."""
    heads, rows, width = query.shape
    if query.is_cuda:  # one operation for six; on a CPU a row's bits would depend on how many rows are computed
        folded = query.reshape(len(keys), -1, width)
        return torch.bmm(folded, keys.transpose(-1, -2)).view(heads, rows, -1)
    grouped: Tensor = query.unflatten(0, (len(keys), -1)) @ keys[:, None].transpose(-1, -2)
    return grouped.flatten(0, 1)
