"""From a running prefill to the `View` of one decision, and from the method's answer to checked indices."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uniprune.engine.attention import DecoderTap
from uniprune.errors import PruningError
from uniprune.pruner import Selection, Stage
from uniprune.view import Rows


def generator(seed: int, sample: str, ordinal: int, layer: int) -> torch.Generator:
    """CPU generator of one decision; the same whatever the batch, the order of samples or the Python process."""
    key = f"{seed}\x1f{sample}\x1f{ordinal}\x1f{layer}".encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:8], "little") >> 1)


def question_mask(ids: Tensor | None, text: Tensor, after: int, question: Tensor | None, special: list[int]) -> Tensor:
    """[L] True at the question's tokens of one row.

    Where the ids of `question` occur as they are (after the first image if possible), these; otherwise all text after
    the first image that is no special token. `ids` [L] are None when the prompt came as embeddings, `text` [L] is True
    at text tokens, `after` is the position of the first visual token.
    """
    behind = torch.arange(len(text), device=text.device) > after
    if ids is None:
        return text & behind
    if question is not None and 0 < len(question) <= len(ids):
        hits = (ids.unfold(0, len(question), 1) == question.to(ids.device)).all(1).nonzero()[:, 0]
        if len(hits):
            later = hits[hits > after]
            start = int(later[0] if len(later) else hits[0])
            found = torch.zeros_like(text)
            found[start : start + len(question)] = True
            return found & text
    return text & behind & ~torch.isin(ids, torch.tensor(special, device=ids.device))


@dataclass(frozen=True)
class UnitAttention:
    """`view.attention` and `view.upcoming`: rows of one decoder layer towards the tokens one view holds.

    Attributes:
        tap: what that layer's attention saw; None when the method did not ask for it. row: batch item.
        valid: [n] False at padding. visual: [N] positions of the view's tokens in that sequence.
        text: positions of all text tokens. prompt: gives those of the question's, which few methods look at.
    """

    tap: DecoderTap | None
    row: int
    valid: Tensor
    visual: Tensor
    text: Tensor
    prompt: Callable[[], Tensor]

    def __call__(self, rows: Rows | Tensor) -> Tensor:
        """[heads, R, N] probabilities; see `uniprune.view.Attention`."""
        return torch.cat(list(self.blocks(rows)), dim=1)

    def blocks(self, rows: Rows | Tensor) -> Iterator[Tensor]:
        """[heads, r, N] probabilities, a few rows at a time."""
        tap = self._tap
        device = tap.hidden.device
        queries, columns = self._queries(rows).to(device), self.visual.to(device)
        return tap.probabilities(self.row, queries, columns, self.valid.to(device))

    def keys(self, rows: Rows | Tensor) -> Tensor:
        """[R, key heads * d] keys after rotary embedding."""
        return self._tap.keys(self.row, self._queries(rows).to(self._tap.hidden.device))

    def rotary_prior(self, rows: Rows | Tensor) -> Tensor:
        """[R, N] scaled dot product of all-ones queries and keys after rotary embedding."""
        device = self._tap.hidden.device
        return self._tap.rotary_prior(self.row, self._queries(rows).to(device), self.visual.to(device))

    @property
    def _tap(self) -> DecoderTap:
        if self.tap is None:
            raise PruningError(
                "LLM attention was not captured; set the class variable llm_attention = True for view.attention, "
                "upcoming_attention = True for view.upcoming"
            )
        return self.tap

    def _queries(self, rows: Rows | Tensor) -> Tensor:
        """[R] positions that `rows` mean."""
        if isinstance(rows, Tensor):
            return self.text[rows.to(self.text.device)]
        match rows:
            case "last":
                return self.valid.nonzero()[-1]
            case "prompt":
                return self.prompt()
            case "text":
                return self.text
            case "visual":
                return self.visual
        raise PruningError(f"attention rows {rows!r} are unknown; expected a tensor, last, prompt, text or visual")


@dataclass(frozen=True)
class UnitEmbedded:
    """`view.embedded`: what entered layer 0, `embeds` [L, D], at the positions `visual` [N] and `written` [T]."""

    embeds: Tensor
    visual: Tensor
    written: Tensor
    device: torch.device

    @property
    def tokens(self) -> Tensor:
        """[N, D] at the view's tokens."""
        return self._at(self.visual)

    @property
    def text(self) -> Tensor:
        """[T, D] at the text tokens."""
        return self._at(self.written)

    def _at(self, positions: Tensor) -> Tensor:
        return self.embeds[positions.to(self.embeds.device)].to(self.device)


def choose(stage: Stage, sample: str, view: Any, keep: int) -> Selection:
    """Ask the stage's method and check its answer.

    Returns:
        Sorted int64 indices on the tokens' device, replacement tokens (if any) in the same order and dtype.

    Raises:
        PruningError: naming the method, layer, sample and what is wrong.
    """
    answer = stage.pruner.select(view, keep)
    indices, tokens = (answer.indices, answer.tokens) if isinstance(answer, Selection) else (answer, None)
    problem = _problem(indices, tokens, view.tokens, keep if stage.pruner.exact else None)
    if problem:
        raise PruningError(
            f"{type(stage.pruner).__name__} at layer {stage.layer}, sample {sample!r}: select() returned {problem}"
        )
    indices, order = indices.to(view.tokens.device, torch.long).sort()
    if tokens is not None:
        tokens = tokens.to(view.tokens.device)[order].to(view.tokens.dtype)
    return Selection(indices, tokens)


def _problem(indices: Any, tokens: Any, before: Tensor, keep: int | None) -> str | None:
    """What is wrong with an answer, None when nothing is."""
    if not isinstance(indices, Tensor):
        return f"{type(indices).__name__} instead of a tensor of indices or a Selection"
    if indices.dtype == torch.bool or indices.is_floating_point() or indices.is_complex():
        return f"indices of dtype {indices.dtype}; expected integers (turn a mask into indices with .nonzero())"
    if indices.dim() != 1:
        return f"indices of shape {tuple(indices.shape)}; expected one dimension"
    count, total = len(indices), len(before)
    if keep is not None and count != keep:
        return f"{count} indices; exactly {keep} of {total} were asked for (set exact = False if the method decides)"
    host = indices.cpu()
    if count and (int(host.min()) < 0 or int(host.max()) >= total):
        return f"indices from {int(host.min())} to {int(host.max())}; expected 0 to {total - 1}"
    repeated = count - len(host.unique())
    if repeated:
        return f"{repeated} duplicate indices; every token can be kept once"
    if tokens is None:
        return None
    wanted = (count, before.shape[1])
    if not isinstance(tokens, Tensor) or tuple(tokens.shape) != wanted or not tokens.is_floating_point():
        got = f"{tokens.dtype} {tuple(tokens.shape)}" if isinstance(tokens, Tensor) else type(tokens).__name__
        return f"replacement tokens {got}; expected floating point {wanted}"
    return None if bool(tokens.isfinite().all()) else "replacement tokens that contain NaN or infinity"
