"""From two strategies and a batch to a decision: counts, checks and seeds in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniprune.errors import PruningError
from uniprune.pruning.budget import floor_count
from uniprune.tuning.plane import bisect
from uniprune.tuning.strategy import Picks, SampleStrategy, SampleView, TokenStrategy, TokenView


@dataclass(frozen=True)
class Pair:
    """A sample strategy and a token strategy with their keep ratios, in (0, 1]."""

    samples: SampleStrategy
    tokens: TokenStrategy
    sample_ratio: float
    token_ratio: float

    @property
    def needs_scores(self) -> bool:
        """Whether every sample of a batch must be scored before samples are chosen."""
        return self.samples.scores or self.tokens.by_quadrant


@dataclass(frozen=True)
class Candidate:
    """One sample of a batch before the decision.

    Attributes:
        index: its number in the data. length: tokens, prompt included. answer: answer tokens.
        nll, entropy: [answer] per token, where scored.
    """

    index: int
    length: int
    answer: int
    nll: Tensor | None = None
    entropy: Tensor | None = None


@dataclass(frozen=True)
class Chosen:
    """One sample that will be trained on.

    Attributes:
        position: its place in the batch. weight: factor of its loss.
    """

    position: int
    weight: float


@dataclass(frozen=True)
class Batch:
    """A batch after the choice of samples.

    Attributes:
        chosen: in batch order. quadrants: [N] quadrant of every sample; None where the plane was not measured.
        perplexity, entropy: [N] where measured. wanted: samples the ratio asks for before at least one is kept.
    """

    chosen: list[Chosen]
    quadrants: Tensor | None
    perplexity: Tensor | None
    entropy: Tensor | None
    wanted: float


def choose_samples(pair: Pair, batch: Sequence[Candidate], seed: torch.Generator) -> Batch:
    """Choose exactly `floor_count(N, ratio)` samples of a batch (all where the strategy does not prune).

    Raises:
        PruningError: the strategy chose another number, a sample twice, or one that is not there.
    """
    ratio = pair.sample_ratio if pair.samples.prunes else 1.0
    keep = floor_count(len(batch), ratio)
    measured = plane_axes(batch) if all(c.nll is not None for c in batch) else None
    view = SampleView(torch.tensor([c.length for c in batch]), ratio, measured, seed)
    picks = pair.samples.select(view, keep)
    picks = picks if isinstance(picks, Picks) else Picks(picks)
    order = checked(type(pair.samples).__name__, picks.indices, keep, len(batch))
    weights = [1.0] * keep if picks.weights is None else picks.weights.tolist()
    quadrants = picks.quadrants
    if quadrants is None and measured is not None:
        quadrants = bisect(measured[0], measured[1], pair.sample_ratio).quadrants
    chosen = sorted((Chosen(p, w) for p, w in zip(order, weights, strict=True)), key=lambda c: c.position)
    perplexity, entropy = (None, None) if measured is None else (measured[0], measured[1])
    return Batch(chosen, quadrants, perplexity, entropy, ratio * len(batch))


def choose_tokens(pair: Pair, answer: int, measured: Mapping[str, Tensor], seed: torch.Generator) -> list[int]:
    """Places within an answer of `answer` tokens to keep, ascending: exactly `floor_count(answer, ratio)`.

    Raises:
        PruningError: as for samples.
    """
    keep = floor_count(answer, pair.token_ratio)
    if keep == answer:
        return list(range(answer))
    picks = pair.tokens.select(TokenView(answer, seed, measured), keep)
    return sorted(checked(type(pair.tokens).__name__, picks, keep, answer))


def plane_axes(batch: Sequence[Candidate]) -> Tensor:
    """[2, N] perplexity and mean token entropy of scored samples, float64."""
    nll = torch.stack([c.nll.double().mean() for c in batch if c.nll is not None])
    entropy = torch.stack([c.entropy.double().mean() for c in batch if c.entropy is not None])
    # Not-a-number counts as utterly wrong and unsure; exp(700) is still finite, so that scaling stays so.
    return torch.stack((nll.nan_to_num(700.0).clamp(max=700.0).exp(), entropy.nan_to_num(700.0)))


def checked(name: str, picks: Tensor, keep: int, of: int) -> list[int]:
    """The chosen indices as a list. Raises PruningError naming the strategy when they break its contract."""
    chosen: list[int] = picks.tolist()
    if len(chosen) != keep or len(set(chosen)) != keep or not all(0 <= index < of for index in chosen):
        raise PruningError(f"{name} must choose {keep} different indices below {of}, but chose {chosen[:20]}")
    return chosen
