"""How far a pruned model's answers are from the un-pruned model's, without any label.

*Agreement* compares whole answers. *First-token KL* compares the distributions behind the prompt, before any choice of
a token: it sees shifts that leave the answer as it was. Only the most likely tokens of each distribution are stored, so
the divergence is taken over the tokens that both stored and one bucket for all others. Merging tokens into a bucket can
only hide differences (data processing inequality): the number is a lower bound of the full divergence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = 20
"""Most likely tokens stored per answer."""
DIGITS = 5
"""Decimals stored of a log-probability."""
LEAST = 1e-6
"""Least probability of a bucket: what rounding to `DIGITS` decimals may leave of an empty one."""


class FirstToken(BaseModel):
    """Distribution of an answer's first token, cut to its most likely ones."""

    model_config = ConfigDict(frozen=True)

    ids: list[int]
    """Token ids, most likely first."""
    logs: list[float]
    """Their natural log-probabilities."""
    rest: float
    """Probability of all other tokens together."""


@dataclass(frozen=True)
class Fidelity:
    """Row by row, over the rows that both runs answered.

    Attributes:
        rows: their indices. same: 1 where the answers are equal, else 0. kl: lower bounds of KL(un-pruned || pruned) of
            the first token, in nats; None unless both runs stored all distributions.
    """

    rows: list[str]
    same: list[int]
    kl: list[float] | None


def first_tokens(logits: Tensor, count: int = TOKENS) -> list[FirstToken]:
    """The distributions of [B, V] logits, each cut to its `count` most likely tokens."""
    logs = logits.float().log_softmax(-1)
    top, ids = logs.topk(min(count, logits.shape[-1]), dim=-1)
    others = logs.scatter(-1, ids, float("-inf")).exp().sum(-1)
    return [
        FirstToken(ids=row.tolist(), logs=[round(p, DIGITS) for p in values.tolist()], rest=rest)
        for row, values, rest in zip(ids, top, others.tolist(), strict=True)
    ]


def divergence(reference: FirstToken, other: FirstToken) -> float:
    """Lower bound of KL(reference || other) in nats: over the tokens both stored, and the rest as one."""
    theirs = dict(zip(other.ids, other.logs, strict=True))
    mine = dict(zip(reference.ids, reference.logs, strict=True))
    both = [token for token in mine if token in theirs]
    kl = sum(exp(mine[token]) * (mine[token] - theirs[token]) for token in both)
    p, q = (
        max(
            LEAST,
            one.rest + sum(exp(value) for token, value in zip(one.ids, one.logs, strict=True) if token not in both),
        )
        for one in (reference, other)
    )
    return max(0.0, kl + p * log(p / q))


def fidelity(
    reference: Mapping[str, tuple[str, FirstToken | None]], other: Mapping[str, tuple[str, FirstToken | None]]
) -> Fidelity | None:
    """Compare answers (row -> text and first token) row by row; None without a row that both answered."""
    rows = [row for row in reference if row in other]
    if not rows:
        return None
    pairs = [(reference[row][1], other[row][1]) for row in rows]
    known = [round(divergence(a, b), DIGITS + 2) for a, b in pairs if a is not None and b is not None]
    same = [int(reference[row][0] == other[row][0]) for row in rows]
    return Fidelity(rows, same, known if len(known) == len(rows) else None)
