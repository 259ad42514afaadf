"""What a strategy for fine-tuning is: a frozen dataclass with one pure decision, `select`.

A sample strategy picks `keep` of a batch's samples, a token strategy `keep` of a sample's answer tokens. Any two make a
pair. Neither counts, rounds, sorts, touches a model or keeps state: `uniprune/tuning/pruning.py` does the rest, and a
decision depends on (seed, step, samples) only, so that a resumed training decides as an uninterrupted one.

    @register_samples("longest")
    @dataclass(frozen=True, kw_only=True)
    class Longest(SampleStrategy): ...
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from uniprune.errors import PruningError
from uniprune.registry import Registry

SAMPLES = Registry("sample strategy", "uniprune.methods.tuning.samples")
TOKENS = Registry("token strategy", "uniprune.methods.tuning.tokens")

register_samples = SAMPLES.register
register_tokens = TOKENS.register


@dataclass(frozen=True)
class SampleView:
    """A batch of N samples as a sample strategy sees it.

    Attributes:
        lengths: [N] tokens of each sample, prompt included. ratio: share of the samples to keep.
        measured: [2, N] perplexity and entropy in float64, or None where the strategy did not declare `scores`.
        generator: the only source of random choices.
    """

    lengths: Tensor
    ratio: float
    measured: Tensor | None
    generator: torch.Generator

    @property
    def perplexity(self) -> Tensor:
        """[N] exponential of the mean negative log-likelihood over answer tokens."""
        return _declared(self.measured, "scores")[0]

    @property
    def entropy(self) -> Tensor:
        """[N] mean entropy of the predicted distributions over answer tokens, in nats."""
        return _declared(self.measured, "scores")[1]


@dataclass(frozen=True)
class Picks:
    """Chosen samples.

    Attributes:
        indices: [keep] unique indices into the batch.
        quadrants: [N] quadrant of every sample, where the strategy cut the plane itself.
        weights: [keep] factors of the chosen samples' losses; None is 1.
    """

    indices: Tensor
    quadrants: Tensor | None = None
    weights: Tensor | None = None


@dataclass(frozen=True)
class TokenView:
    """The T answer tokens of one sample as a token strategy sees them.

    Attributes:
        count: T. generator: the only source of random choices. measured: what the strategy declared, by name.
    """

    count: int
    generator: torch.Generator
    measured: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def nll(self) -> Tensor:
        """[T] negative log-likelihood of each token, float32; needs `scores`."""
        return _declared(self.measured.get("nll"), "scores")

    @property
    def reference(self) -> Tensor:
        """[T] the reference model's negative log-likelihood; needs `reference`."""
        return _declared(self.measured.get("reference"), "reference")

    @property
    def attention(self) -> Tensor:
        """[A, T] attention of the last decoder layer to the tokens, heads averaged; needs `attention`.

        One row of the sample's last position ("last"), or T rows of the answer tokens themselves ("answer").
        """
        return _declared(self.measured.get("attention"), "attention")

    @property
    def states(self) -> Tensor:
        """[T, D] last hidden states at the tokens, float32; needs `states`."""
        return _declared(self.measured.get("states"), "states")


@dataclass(frozen=True, kw_only=True)
class SampleStrategy:
    """Base of all sample strategies."""

    scores: ClassVar[bool] = False
    """Whether perplexity and entropy are asked for."""
    prunes: ClassVar[bool] = True
    """False for the strategy that keeps every sample whatever the ratio."""
    stochastic: ClassVar[bool] = False
    """Whether the generator decides."""

    def select(self, view: SampleView, keep: int) -> Tensor | Picks:
        """Choose `keep` of the batch. Must be pure and deterministic given `view`."""
        raise NotImplementedError(f"{type(self).__name__} must implement select(view, keep)")


@dataclass(frozen=True, kw_only=True)
class TokenStrategy:
    """Base of all token strategies. By default every kept sample loses tokens."""

    scores: ClassVar[bool] = False
    """Whether token perplexities are asked for."""
    reference: ClassVar[bool] = False
    """Whether a reference model's perplexities are asked for."""
    attention: ClassVar[str] = ""
    """Query positions of the attention asked for: "last", "answer", or "" for none."""
    states: ClassVar[bool] = False
    """Whether last hidden states are asked for."""
    by_quadrant: ClassVar[bool] = False
    """Whether a sample's quadrant decides if it loses tokens, so that the plane is needed."""

    def concerns(self, quadrant: int | None) -> bool:
        """Whether a sample of this quadrant loses tokens (None: the plane was not measured)."""
        return True

    def select(self, view: TokenView, keep: int) -> Tensor:
        """Choose `keep` of the answer's tokens. Must be pure and deterministic given `view`."""
        raise NotImplementedError(f"{type(self).__name__} must implement select(view, keep)")


def smoothed(perplexity: Tensor, share: float) -> Tensor:
    """[T] perplexity of each token mixed with its two neighbours': (1 - share) p_i + share (p_{i-1} + p_{i+1}).

    The first and the last token stand in for the neighbour they lack; the paper leaves that open.
    """
    padded = torch.cat((perplexity[:1], perplexity, perplexity[-1:]))
    return (1 - share) * perplexity + share * (padded[:-2] + padded[2:])


def _declared(value: Tensor | None, need: str) -> Tensor:
    """The quantity, or PruningError when the strategy asked for what it did not declare."""
    if value is None:
        raise PruningError(f"a strategy looked at {need!r}, which it does not declare; set it in its class")
    return value
