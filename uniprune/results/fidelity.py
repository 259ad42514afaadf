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

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uniprune.errors import UserError
from uniprune.utils.files import explain_write, write_atomically
from uniprune.results.predictions import FirstToken, prediction_lines
from uniprune.results.records import RunRecord, Store
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
import numpy as np
from uniprune.results.statistics import Estimate, resampled_means

if TYPE_CHECKING:
    from torch import Tensor


TOKENS = 20
"""Most likely tokens stored per answer."""
DIGITS = 5
"""Decimals stored of a log-probability."""
LEAST = 1e-6
"""Least probability of a bucket: what rounding to `DIGITS` decimals may leave of an empty one."""




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



Told = dict[str, tuple[str, FirstToken | None]]
"""Row -> answer and distribution of its first token."""


class FidelityCache:
    """Compares the stored answers of two runs: `likeness(reference, run, dataset)`.

    Reading every answer of every run for each leaderboard would take minutes on full benchmarks, so what was found is
    kept in `results/<identity>/<benchmark>.fidelity.json` for as long as both files of answers stay as they are. Such a
    file may be deleted at any time.

    Args:
        store: where the runs are.
    """

    def __init__(self, store: Store) -> None:
        self._root = store.root
        self._references: dict[Path, Told] = {}

    def __call__(self, reference: RunRecord, run: RunRecord, dataset: str) -> Fidelity | None:
        """None without answers to compare. Raises UserError where a stored line is damaged."""
        base, own = (self._root / one.identity / f"{dataset}.jsonl" for one in (reference, run))
        if not (base.is_file() and own.is_file()):
            return None
        state = [reference.identity, *(number for file in (base, own) for number in _state(file))]
        path = own.with_suffix(".fidelity.json")
        kept = _kept(path)
        if kept.get("state") == state:
            return Fidelity(**kept["fidelity"])
        if base not in self._references:
            self._references[base] = told(base)
        result = fidelity(self._references[base], told(own))
        if result is not None:
            text = json.dumps({"state": state, "fidelity": asdict(result)})
            with contextlib.suppress(UserError), explain_write(path):  # results may be read-only
                write_atomically(path, text + "\n")
        return result


def told(path: Path) -> Told:
    """What a file of answers says; rows that could not be asked and a line still being written are left out."""
    stored = prediction_lines(path).read()
    return {answer.index: (answer.prediction, answer.first) for answer in stored if answer.error is None}


def _state(path: Path) -> tuple[int, int]:
    """What changes with a file's content."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _kept(path: Path) -> Mapping[str, Any]:
    """What was found before; empty where there is nothing, or a file that was cut."""
    try:
        kept: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return kept




@dataclass(frozen=True)
class FidelityEstimate:
    """Fidelity as estimates.

    Attributes:
        agreement: equal answers in percent. kl: of the first token, in nats; None unless it is known of every answer.
    """

    agreement: Estimate
    kl: Estimate | None

    def certain(self) -> FidelityEstimate:
        """The same without intervals."""
        return FidelityEstimate(replace(self.agreement, clusters=0), self.kl and replace(self.kl, clusters=0))


def closeness(told: Mapping[str, Fidelity], clusters: Mapping[str, str] | None, name: str) -> dict[str, FidelityEstimate]:
    """Run -> closeness on benchmark `name`. Runs that answered the same rows are resampled together.

    `clusters` say which rows share a picture; None if nobody knows, and then there are no intervals.
    """
    together: dict[tuple[str, ...], dict[str, Fidelity]] = defaultdict(dict)
    for run, fidelity in told.items():
        together[tuple(fidelity.rows)][run] = fidelity
    found: dict[str, FidelityEstimate] = {}
    for rows, runs in together.items():
        same = [100.0 * np.array(one.same) for one in runs.values()]
        known = {run: np.array(one.kl) for run, one in runs.items() if one.kl is not None}
        estimates = resampled_means(rows, clusters or {}, np.stack([*same, *known.values()]), name)
        kls = dict(zip(known, estimates[len(runs) :], strict=True))
        for run, agreement in zip(runs, estimates, strict=False):
            found[run] = FidelityEstimate(replace(agreement, share=True), kls.get(run))
    return found if clusters is not None else {run: one.certain() for run, one in found.items()}
