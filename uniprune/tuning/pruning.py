"""Decisions about one batch: counts, checks and the order of choices, around what the two strategies select."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniprune.errors import PruningError
from uniprune.pruning.budget import floor_count
from uniprune.tuning.plane import bisect
from uniprune.tuning.scoring import Scores
from uniprune.tuning.strategy import Picks, SampleStrategy, SampleView, TokenStrategy, TokenView

MOST_NATS = 700.0
"""Loss and entropy that a sample without a finite one counts as, and the largest of all. Its exponential is finite."""
MOST_PERPLEXITY = float(torch.tensor(MOST_NATS, dtype=torch.float64).exp())
"""Exponential of `MOST_NATS`, as `plane_axes` computes it."""


@dataclass(frozen=True)
class Pair:
    """A sample strategy and a token strategy.

    Attributes:
        samples: chooses samples of a batch.
        tokens: chooses answer tokens of a sample.
        sample_ratio: share of a batch's samples to keep, in (0, 1].
        token_ratio: share of an answer's tokens to keep, in (0, 1].
    """

    samples: SampleStrategy
    tokens: TokenStrategy
    sample_ratio: float
    token_ratio: float

    @property
    def needs_scores(self) -> bool:
        """Return whether every sample of a batch must be scored before samples are chosen."""
        return self.samples.scores or self.tokens.by_quadrant


@dataclass(frozen=True)
class Candidate:
    """One sample of a batch before the decision.

    Attributes:
        index: its row number in the data.
        length: number of tokens, prompt included.
        answer: number of answer tokens.
        nll: [answer] negative log-likelihoods, None if not scored.
        entropy: [answer] entropies, None if not scored.
    """

    index: int
    length: int
    answer: int
    nll: Tensor | None = None
    entropy: Tensor | None = None


@dataclass(frozen=True)
class ChosenSample:
    """One sample to train on.

    Attributes:
        position: its place in the batch.
        weight: factor of its loss.
    """

    position: int
    weight: float


@dataclass(frozen=True)
class PrunedBatch:
    """A batch after the choice of samples.

    Attributes:
        chosen: the chosen samples, in batch order.
        quadrants: [N] quadrant of every sample, None if the plane was not measured.
        axes: [2, N] perplexities and mean token entropies, None if not measured.
        exact_count: the ratio's share of the batch, before it is rounded to at least one sample.
    """

    chosen: list[ChosenSample]
    quadrants: Tensor | None
    axes: Tensor | None
    exact_count: float


def units(count: int, batch: int, world: int, *, joined: bool) -> Iterator[range]:
    """Yield what is pruned together of `count` gathered places, those of one process after those of another.

    Args:
        count: as many of every process.
        batch: samples of a process that are pruned together.
        world: number of processes.
        joined: True if those of all processes are one batch.
    """
    parts, size = (1, batch * world) if joined else (world, batch)
    each = count // parts
    for first in range(0, count, each):
        yield from (range(start, min(start + size, first + each)) for start in range(first, first + each, size))


def choose_samples(pair: Pair, batch: Sequence[Candidate], generator: torch.Generator) -> PrunedBatch:
    """Choose exactly `floor_count(N, ratio)` samples of a batch, or all if the strategy does not prune.

    Raises:
        PruningError: the strategy chose another number, a sample twice, or one outside the batch.
    """
    ratio = pair.sample_ratio if pair.samples.prunes else 1.0
    keep = floor_count(len(batch), ratio)
    measured = plane_axes(batch) if all(c.nll is not None for c in batch) else None
    view = SampleView(torch.tensor([c.length for c in batch]), ratio, measured, generator)
    picks = pair.samples.select(view, keep)
    picks = picks if isinstance(picks, Picks) else Picks(picks)
    positions = checked(type(pair.samples).__name__, picks.indices, keep, len(batch))
    weights = [1.0] * keep if picks.weights is None else picks.weights.tolist()
    quadrants = picks.quadrants
    if quadrants is None and measured is not None:
        quadrants = bisect(measured[0], measured[1], pair.sample_ratio).quadrants
    chosen = sorted((ChosenSample(p, w) for p, w in zip(positions, weights, strict=True)), key=lambda c: c.position)
    return PrunedBatch(chosen, quadrants, measured, ratio * len(batch))


def choose_tokens(pair: Pair, answer: int, measured: Mapping[str, Tensor], generator: torch.Generator) -> list[int]:
    """Choose exactly `floor_count(answer, ratio)` places within an answer of `answer` tokens; return them ascending.

    Raises:
        PruningError: a measurement other than the loss is not finite; or the strategy chose another number, a token
            twice, or one outside the answer.
    """
    keep = floor_count(answer, pair.token_ratio)
    # Without a loss there is no ranking: the sample stays whole, and its loss voids the step.
    if keep == answer or ("nll" in measured and not measured["nll"].isfinite().all()):
        return list(range(answer))
    if unusable := [name for name, values in measured.items() if not values.isfinite().all()]:
        name = type(pair.tokens).__name__
        raise PruningError(f"{name} cannot rank tokens: NaN or infinity in their {', '.join(unusable)}")
    picks = pair.tokens.select(TokenView(answer, generator, measured), keep)
    return sorted(checked(type(pair.tokens).__name__, picks, keep, answer))


def plane_axes(batch: Sequence[Candidate | Scores]) -> Tensor:
    """Return the [2, N] perplexity and mean token entropy of scored samples, float64.

    A loss or an entropy that is NaN counts as the largest: `MOST_NATS`.
    """
    nll = torch.stack([c.nll.double().mean() for c in batch if c.nll is not None])
    entropy = torch.stack([c.entropy.double().mean() for c in batch if c.entropy is not None])
    nll, entropy = (axis.nan_to_num(MOST_NATS).clamp(max=MOST_NATS) for axis in (nll, entropy))
    return torch.stack((nll.exp(), entropy))


def stored_axes(axes: Tensor) -> list[list[float | None]]:
    """Return [2, N] perplexities and entropies as they are stored: 4 decimals, null where they count as the largest."""
    return [
        [round(value, 4) if value < most else None for value in axis.tolist()]
        for axis, most in zip(axes, (MOST_PERPLEXITY, MOST_NATS), strict=True)
    ]


def checked(name: str, picks: Tensor, keep: int, of: int) -> list[int]:
    """Return the chosen indices as a list.

    Raises:
        PruningError: there are not `keep` different ones below `of`.
    """
    chosen: list[int] = picks.tolist()
    if len(chosen) != keep or len(set(chosen)) != keep or not all(0 <= index < of for index in chosen):
        raise PruningError(f"{name} must choose {keep} different indices below {of}, but chose {chosen[:20]}")
    return chosen
