"""Strategies for fine-tuning: frozen dataclasses with one pure decision, `select`.

A sample strategy chooses `keep` of a batch's samples, a token strategy `keep` of a sample's answer tokens. Any two make
a pair. Neither counts, rounds, sorts, touches a model or keeps state: `uniprune/tuning/pruning.py` does that, and a
decision depends on (seed, step, samples) only, so a resumed training decides like an uninterrupted one. Fields are
validated by their annotations.

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
from uniprune.pruning.fields import validate
from uniprune.registry import Registry

SAMPLES = Registry("sample strategy", "uniprune.methods.tuning.samples")
TOKENS = Registry("token strategy", "uniprune.methods.tuning.tokens")

register_samples = SAMPLES.register
register_tokens = TOKENS.register


@dataclass(frozen=True)
class SampleView:
    """Input of a sample strategy: a batch of N samples.

    Attributes:
        lengths: [N] number of tokens of each sample, prompt included.
        ratio: share of the samples to keep.
        measured: [2, N] perplexity and entropy in float64, None unless the strategy declares `scores`.
        generator: the only source of random choices.
    """

    lengths: Tensor
    ratio: float
    measured: Tensor | None
    generator: torch.Generator

    @property
    def perplexity(self) -> Tensor:
        """Return the [N] exponential of the mean negative log-likelihood over answer tokens."""
        return _declared(self.measured, "scores")[0]

    @property
    def entropy(self) -> Tensor:
        """Return the [N] mean entropy of the predicted distributions over answer tokens, in nats."""
        return _declared(self.measured, "scores")[1]


@dataclass(frozen=True)
class Picks:
    """Chosen samples.

    Attributes:
        indices: [keep] unique indices into the batch.
        quadrants: [N] quadrant of every sample, None unless the strategy cut the plane itself.
        weights: [keep] factors of the chosen samples' losses, None for 1.
    """

    indices: Tensor
    quadrants: Tensor | None = None
    weights: Tensor | None = None


@dataclass(frozen=True)
class TokenView:
    """Input of a token strategy: the T answer tokens of one sample.

    Attributes:
        count: T.
        generator: the only source of random choices.
        measured: the quantities that the strategy declares, by name.
    """

    count: int
    generator: torch.Generator
    measured: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def nll(self) -> Tensor:
        """Return the [T] negative log-likelihoods of the tokens, float32; needs `scores`."""
        return _declared(self.measured.get("nll"), "scores")

    @property
    def reference(self) -> Tensor:
        """Return the [T] negative log-likelihoods under the reference model; needs `reference`."""
        return _declared(self.measured.get("reference"), "reference")

    @property
    def attention(self) -> Tensor:
        """Return the [A, T] attention of the last decoder layer to the tokens, heads averaged; needs `attention`.

        A is 1, the sample's last position ("last"), or T, the answer tokens themselves ("answer").
        """
        return _declared(self.measured.get("attention"), "attention")

    @property
    def states(self) -> Tensor:
        """Return the [T, D] last hidden states at the tokens, float32; needs `states`."""
        return _declared(self.measured.get("states"), "states")


@dataclass(frozen=True, kw_only=True)
class SampleStrategy:
    """Base of all sample strategies; its class variables declare what `select` uses."""

    scores: ClassVar[bool] = False
    """True if `select` reads perplexity and entropy."""
    prunes: ClassVar[bool] = True
    """False for a strategy that keeps every sample at every ratio."""
    stochastic: ClassVar[bool] = False
    """True if `select` draws from the generator."""

    def __post_init__(self) -> None:
        validate(self)

    def select(self, view: SampleView, keep: int) -> Tensor | Picks:
        """Return `keep` indices of the batch. Must be pure and deterministic given `view`."""
        raise NotImplementedError(f"{type(self).__name__} must implement select(view, keep)")


@dataclass(frozen=True, kw_only=True)
class TokenStrategy:
    """Base of all token strategies; its class variables declare what `select` uses."""

    scores: ClassVar[bool] = False
    """True if `select` reads the tokens' log-likelihoods."""
    reference: ClassVar[bool] = False
    """True if `select` reads log-likelihoods under a reference model."""
    attention: ClassVar[str] = ""
    """Query positions of the attention that `select` reads: "last", "answer", or "" for none."""
    states: ClassVar[bool] = False
    """True if `select` reads last hidden states."""
    by_quadrant: ClassVar[bool] = False
    """True if `applies_to` depends on the quadrant, so that the plane must be measured."""

    def __post_init__(self) -> None:
        validate(self)

    def applies_to(self, quadrant: int | None) -> bool:
        """Return whether kept samples of a quadrant (None: not measured) lose tokens; by default all do."""
        return True

    def select(self, view: TokenView, keep: int) -> Tensor:
        """Return `keep` places within the answer. Must be pure and deterministic given `view`."""
        raise NotImplementedError(f"{type(self).__name__} must implement select(view, keep)")


def smoothed(perplexity: Tensor, share: float) -> Tensor:
    """Mix each token's perplexity with its two neighbours': (1 - share) p_i + share (p_{i-1} + p_{i+1}), [T].

    The first and the last token replace their missing neighbour by themselves; the paper leaves that open.
    """
    padded = torch.cat((perplexity[:1], perplexity, perplexity[-1:]))
    return (1 - share) * perplexity + share * (padded[:-2] + padded[2:])


def _declared(value: Tensor | None, need: str) -> Tensor:
    """Return a declared quantity. Raises PruningError for one that the strategy does not declare."""
    if value is None:
        raise PruningError(f"a strategy reads {need!r}, which it does not declare; set it in its class")
    return value
