"""Attention of the decoder on demand: recomputed from captured module inputs, a block of query rows at a time.

No attention kernel has to return its weights, so eager, sdpa and flash attention all work, and only the rows a method
reads are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from uniprune.engine.compaction import to_device
from uniprune.engine.layer_kinds import rotation
from uniprune.errors import PruningError
from uniprune.pruning.view import Rows

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

    def probabilities(self, row: int, queries: Tensor, columns: Tensor, valid: Tensor) -> Iterator[Tensor]:
        """Yield [heads, r, N] attention from positions `queries` [R] to `columns` [N] of batch item `row`, by blocks.

        The softmax runs over the positions that the layer's own mask allows, and over the layer's sinks, if it has
        some; without a mask of pairs, over all earlier valid positions. `valid` is [n].
        """
        keys = self._keys(row)
        position = torch.arange(keys.shape[-2], device=keys.device)
        for block in queries.split(BLOCK):
            query = self._rotate(self._queries(self.hidden[row, block]), row, block)
            grouped = query.unflatten(0, (keys.shape[0], -1))
            logits = (grouped @ keys[:, None].transpose(-1, -2)).flatten(0, 1) * self.module.scaling
            logits = self._masked(logits.float(), row, block, (position <= block[:, None]) & valid)
            yield torch.cat((logits, self._sinks(logits)), dim=-1).softmax(-1)[..., columns]

    def keys(self, row: int, positions: Tensor) -> Tensor:
        """Return [R, key heads * d] rotated keys at `positions` [R] of batch item `row`."""
        return self._keys(row)[:, positions].transpose(0, 1).flatten(1)

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

    def _masked(self, logits: Tensor, row: int, queries: Tensor, causal: Tensor) -> Tensor:
        """Return `logits` [heads, r, n] of positions `queries` [r] under the layer's mask; `causal` [r, n] else."""
        if not isinstance(self.mask, Tensor) or self.mask.dim() != 4:
            return logits.masked_fill(~causal, -torch.inf)
        own = self.mask[row if len(self.mask) > 1 else 0].to(logits.device)[:, queries, : logits.shape[-1]]
        return logits.masked_fill(~own, -torch.inf) if own.dtype == torch.bool else logits + own.float()

    def _sinks(self, logits: Tensor) -> Tensor:
        """Return [heads, r, s] further logits of the softmax, which belong to no token: s is 1 or 0."""
        sinks = getattr(self.module, "sinks", None)
        if sinks is None:
            return logits[..., :0]
        learned: Tensor = sinks.float()[:, None, None].expand(-1, logits.shape[1], 1)
        return learned

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
        heads: Tensor = getattr(self.module, norm, torch.nn.Identity())(x)
        return heads.transpose(-3, -2)

    def _rotate(self, x: Tensor, row: int, positions: Tensor) -> Tensor:
        """Return [..., n, d] heads rotated as the model does."""
        item = row if self.cos.shape[0] > 1 else 0
        cos, sin = (table[item, positions][None] for table in (self.cos, self.sin))
        heads = x.reshape(1, -1, *x.shape[-2:])
        return rotation(self.module)(heads, cos, sin).view(x.shape)


@dataclass(frozen=True)
class ViewAttention:
    """`view.attention` and `view.upcoming`: attention of one decoder layer to the tokens of one view.

    Attributes:
        captured: the layer's attention inputs; None if the method did not declare that it reads them.
        row: batch item.
        valid: [n] False at padding; all tensors on the CPU.
        visual: [N] positions of the view's tokens in the current sequence.
        text: computes the [T] positions of all text tokens, if the method may read them.
        prompt: computes the positions of the question's tokens, which few methods read.
    """

    captured: AttentionCapture | None
    row: int
    valid: Tensor
    visual: Tensor
    text: Callable[[], Tensor]
    prompt: Callable[[], Tensor]

    def __call__(self, rows: Rows | Tensor) -> Tensor:
        """Return [heads, R, N] probabilities; see `uniprune.pruning.view.Attention`."""
        return torch.cat(list(self.blocks(rows)), dim=1)

    def blocks(self, rows: Rows | Tensor) -> Iterator[Tensor]:
        """Return an iterator over [heads, r, N] probabilities, a few rows at a time."""
        device = self._capture.hidden.device
        queries, columns, valid = (to_device(x, device) for x in (self._queries(rows), self.visual, self.valid))
        return self._capture.probabilities(self.row, queries, columns, valid)

    def keys(self, rows: Rows | Tensor) -> Tensor:
        """Return [R, key heads * d] keys after rotary embedding."""
        return self._capture.keys(self.row, to_device(self._queries(rows), self._capture.hidden.device))

    def rotary_prior(self, rows: Rows | Tensor) -> Tensor:
        """Return [R, N] scaled dot products of all-ones queries and keys after rotary embedding."""
        device = self._capture.hidden.device
        queries, columns = (to_device(x, device) for x in (self._queries(rows), self.visual))
        return self._capture.rotary_prior(self.row, queries, columns)

    @property
    def _capture(self) -> AttentionCapture:
        if self.captured is None:
            raise PruningError(
                "LLM attention was not captured; set the class variable llm_attention = True for view.attention, "
                "upcoming_attention = True for view.upcoming"
            )
        return self.captured

    def _queries(self, rows: Rows | Tensor) -> Tensor:
        """Return the positions [R] that `rows` name."""
        if isinstance(rows, Tensor):
            return to_device(self.text(), rows.device)[rows]
        match rows:
            case "last":
                self.text()
                return self.valid.nonzero()[-1]
            case "prompt":
                return self.prompt()
            case "text":
                return self.text()
            case "visual":
                return self.visual
        raise PruningError(f"attention rows {rows!r} are unknown; expected a tensor, last, prompt, text or visual")


@dataclass(frozen=True)
class ViewEmbedded:
    """`view.embedded`: embeddings that entered layer 0.

    Attributes:
        device: device of the results.
    """

    _embeds: Tensor  # [L, D] of the whole row, which the model reads
    _visual: Tensor  # [N] positions of the view's tokens, on the CPU
    _written: Callable[[], Tensor]  # [T] positions of the text, on the CPU
    device: torch.device

    @property
    def tokens(self) -> Tensor:
        """[N, D] at the view's tokens."""
        return self._at(self._visual)

    @property
    def text(self) -> Tensor:
        """[T, D] at the text tokens."""
        return self._at(self._written())

    def _at(self, positions: Tensor) -> Tensor:
        return self._embeds[to_device(positions, self._embeds.device)].to(self.device)
