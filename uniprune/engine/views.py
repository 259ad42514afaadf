"""From a running prefill to the `View` of one decision, and from the method's answer to checked indices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from uniprune.engine.attention import AttentionCapture
from uniprune.engine.compaction import HOST, to_device, to_host
from uniprune.errors import PruningError
from uniprune.pruning.base import Selection, Stage
from uniprune.pruning.view import Rows


def question(ids: Tensor | None, text: Tensor, after: int, said: Tensor | None, special: list[int]) -> Tensor:
    """[M] positions of the question's tokens in one row.

    Where the ids `said` [M] occur as they are (after the first image if possible), these; otherwise all text after
    the first image that is no special token. `ids` [L] are None when the prompt came as embeddings, `text` [L] is True
    at text tokens, `after` is the position of the first visual token; all on the host.
    """
    behind = torch.arange(len(text)) > after
    if ids is None:
        return (text & behind).nonzero()[:, 0]
    if said is not None and 0 < len(said) <= len(ids):
        hits = (ids.unfold(0, len(said), 1) == said.to(HOST)).all(1).nonzero()[:, 0]
        if len(hits):
            later = hits[hits > after]
            start = int(later[0] if len(later) else hits[0])
            return start + text[start : start + len(said)].nonzero()[:, 0]
    return (text & behind & ~torch.isin(ids, torch.tensor(special))).nonzero()[:, 0]


@dataclass(frozen=True)
class UnitAttention:
    """`view.attention` and `view.upcoming`: rows of one decoder layer towards the tokens one view holds.

    Attributes:
        tap: what that layer's attention saw; None when the method did not ask for it. row: batch item.
        valid: [n] False at padding. visual: [N] positions of the view's tokens in that sequence.
        text: positions of all text tokens. prompt: gives those of the question's, which few methods look at.
        All of them lie on the host.
    """

    tap: AttentionCapture | None
    row: int
    valid: Tensor
    visual: Tensor
    text: Tensor
    prompt: Callable[[], Tensor]

    def __call__(self, rows: Rows | Tensor) -> Tensor:
        """[heads, R, N] probabilities; see `uniprune.pruning.view.Attention`."""
        return torch.cat(list(self.blocks(rows)), dim=1)

    def blocks(self, rows: Rows | Tensor) -> Iterator[Tensor]:
        """[heads, r, N] probabilities, a few rows at a time."""
        tap = self._tap
        device = tap.hidden.device
        queries, columns, valid = (to_device(x, device) for x in (self._queries(rows), self.visual, self.valid))
        return tap.probabilities(self.row, queries, columns, valid)

    def keys(self, rows: Rows | Tensor) -> Tensor:
        """[R, key heads * d] keys after rotary embedding."""
        return self._tap.keys(self.row, to_device(self._queries(rows), self._tap.hidden.device))

    def rotary_prior(self, rows: Rows | Tensor) -> Tensor:
        """[R, N] scaled dot product of all-ones queries and keys after rotary embedding."""
        device = self._tap.hidden.device
        return self._tap.rotary_prior(self.row, *(to_device(x, device) for x in (self._queries(rows), self.visual)))

    @property
    def _tap(self) -> AttentionCapture:
        if self.tap is None:
            raise PruningError(
                "LLM attention was not captured; set the class variable llm_attention = True for view.attention, "
                "upcoming_attention = True for view.upcoming"
            )
        return self.tap

    def _queries(self, rows: Rows | Tensor) -> Tensor:
        """[R] positions that `rows` mean."""
        if isinstance(rows, Tensor):
            return to_device(self.text, rows.device)[rows]
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
        return self.embeds[to_device(positions, self.embeds.device)].to(self.device)


@dataclass(frozen=True)
class Decision:
    """What a method answered about one unit, and who asked.

    Attributes:
        stage, sample, ordinal: the pruning point, the prompt's id and the unit's number.
        before: [N, D] the tokens to choose from. selection: the answer.
    """

    stage: Stage
    sample: str
    ordinal: int
    before: Tensor
    selection: Selection

    def error(self, problem: str) -> PruningError:
        """Says what is wrong with the answer, and whose it is."""
        return PruningError(
            f"{type(self.stage.pruner).__name__} at layer {self.stage.layer}, sample {self.sample!r}: select() "
            f"returned {problem}"
        )


def choose(stage: Stage, sample: str, ordinal: int, view: Any, keep: int) -> Decision:
    """Ask the stage's method about a view and check what can be checked without looking at the answer's values.

    Raises:
        PruningError: naming the method, layer, sample and what is wrong.
    """
    answer = stage.pruner.select(view, keep)
    selection = answer if isinstance(answer, Selection) else Selection(answer)
    choice = Decision(stage, sample, ordinal, view.tokens, selection)
    problem = _malformed(selection, view.tokens, keep if stage.pruner.exact else None)
    if problem:
        raise choice.error(problem)
    return choice


def settle(choices: Sequence[Decision]) -> list[Decision]:
    """The answers to all questions of a stage, sorted: their values come to the host in one transfer, and are checked.

    Returns:
        As `choices`, with sorted int64 indices on the host, and replacement tokens (if any) in that order, on the
        device and in the dtype of the tokens before. The order "release" makes every answer one with replacement
        tokens, in the order in which they were returned.

    Raises:
        PruningError: naming the method, layer, sample and what is wrong.
    """
    indices = [choice.selection.indices for choice in choices]
    finite = [choice.selection.tokens.isfinite().all() for choice in choices if choice.selection.tokens is not None]
    found = to_host([*indices, *finite])
    whole = iter(found[len(indices) :])
    settled = []
    for choice, unsorted in zip(choices, found, strict=False):
        ordered, order = unsorted.sort()
        tokens, before = choice.selection.tokens, choice.before
        problem = _impossible(ordered, len(before)) or (None if tokens is None else _infinite(bool(next(whole))))
        if problem:
            raise choice.error(problem)
        if choice.stage.pruner.order == "release":  # fills the kept places in the order of the answer
            tokens = before[to_device(unsorted, before.device)] if tokens is None else tokens.to(before)
        elif tokens is not None:
            tokens = tokens.to(before)[to_device(order, before.device)]
        settled.append(replace(choice, selection=Selection(ordered, tokens)))
    return settled


def _malformed(selection: Selection, before: Tensor, keep: int | None) -> str | None:
    """What is wrong with an answer's types and shapes, None when nothing is."""
    indices: Any = selection.indices
    tokens: Any = selection.tokens
    if not isinstance(indices, Tensor):
        return f"{type(indices).__name__} instead of a tensor of indices or a Selection"
    if indices.dtype == torch.bool or indices.is_floating_point() or indices.is_complex():
        return f"indices of dtype {indices.dtype}; expected integers (turn a mask into indices with .nonzero())"
    if indices.dim() != 1:
        return f"indices of shape {tuple(indices.shape)}; expected one dimension"
    count, total = len(indices), len(before)
    if keep is not None and count != keep:
        return f"{count} indices; exactly {keep} of {total} were asked for (set exact = False if the method decides)"
    wanted = (count, before.shape[1])
    if tokens is None:
        return None
    if not isinstance(tokens, Tensor) or tuple(tokens.shape) != wanted or not tokens.is_floating_point():
        got = f"{tokens.dtype} {tuple(tokens.shape)}" if isinstance(tokens, Tensor) else type(tokens).__name__
        return f"replacement tokens {got}; expected floating point {wanted}"
    return None


def _impossible(indices: Tensor, total: int) -> str | None:
    """What is wrong with sorted indices [k] into `total` tokens, None when nothing is."""
    if not len(indices):
        return None
    least, most = int(indices[0]), int(indices[-1])
    if least < 0 or most >= total:
        return f"indices from {least} to {most}; expected 0 to {total - 1}"
    repeated = int((indices[1:] == indices[:-1]).sum())
    return f"{repeated} duplicate indices; every token can be kept once" if repeated else None


def _infinite(finite: bool) -> str | None:
    return None if finite else "replacement tokens that contain NaN or infinity"
