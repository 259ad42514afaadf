"""Fidelity: how far a pruned model's predictions are from the un-pruned model's, measured without labels.

*Agreement* compares predicted texts. *First-token KL* compares the distributions after the prompt, before any token is
chosen: it detects shifts that leave the prediction unchanged. Only the most likely tokens of each distribution are
stored, so the divergence is taken over the tokens stored in both and one bucket for all others. Merging tokens into a
bucket can only hide differences (data processing inequality): the number is a lower bound of the full divergence.

Three steps: `compare_predictions` per row, `FidelityCache` for stored runs, `estimate_fidelity` with intervals.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp, isfinite, log
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from uniprune.errors import UserError
from uniprune.results.measurements import Strict
from uniprune.results.predictions import FirstToken, prediction_lines
from uniprune.results.records import RunRecord
from uniprune.results.statistics import Estimate, resampled_means
from uniprune.results.statistics.estimate import POSITIVE, SHARE
from uniprune.results.store import refuse
from uniprune.utils.files import explain_write, write_atomically
from uniprune.utils.json_text import from_json, to_json

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = 20
"""Most likely tokens stored per prediction."""
DIGITS = 5
"""Decimals stored of a log-probability."""
LEAST = 1e-6
"""Least probability of a bucket: an empty one may be this far from zero after rounding to `DIGITS` decimals."""

FirstPredictions = Mapping[str, tuple[str, FirstToken | None]]
"""Row -> predicted text and distribution of its first token."""


@dataclass(frozen=True)
class Fidelity:
    """Fidelity of one run to another, row by row.

    Attributes:
        rows: indices of the rows that both runs predicted.
        same: 1 where the predicted texts are equal, else 0.
        kl: lower bounds of KL(un-pruned || pruned) of the first token, in nats; None unless all are known.
    """

    rows: list[str]
    same: list[int]
    kl: list[float] | None


def first_tokens(logits: Tensor, count: int = TOKENS) -> list[FirstToken]:
    """Return the distributions of [B, V] logits, each cut to its `count` most likely tokens."""
    logs = logits.float().log_softmax(-1)
    top, ids = logs.topk(min(count, logits.shape[-1]), dim=-1)
    others = logs.scatter(-1, ids, float("-inf")).exp().sum(-1)
    return [
        FirstToken(ids=row.tolist(), logs=[round(p, DIGITS) for p in values.tolist()], rest=rest)
        for row, values, rest in zip(ids, top, others.tolist(), strict=True)
    ]


def divergence(reference: FirstToken, other: FirstToken) -> float:
    """Return a lower bound of KL(reference || other) in nats: over the tokens in both, and one bucket for the rest.

    Raises:
        ValueError: one of them holds NaN or infinity, so that there is no such number.
    """
    for one in (reference, other):
        if not all(map(isfinite, (*one.logs, one.rest))):
            raise ValueError(f"no divergence exists: the first token's distribution is not finite ({one})")
    mine, theirs = (dict(zip(one.ids, one.logs, strict=True)) for one in (reference, other))
    both = [token for token in mine if token in theirs]
    kl = sum(exp(mine[token]) * (mine[token] - theirs[token]) for token in both)
    p, q = (_bucket(one, both) for one in (reference, other))
    return max(0.0, kl + p * log(p / q))


def _bucket(one: FirstToken, apart: list[int]) -> float:
    """Return the probability of all tokens but those counted apart."""
    stored = sum(exp(value) for token, value in zip(one.ids, one.logs, strict=True) if token not in apart)
    return max(LEAST, one.rest + stored)


def compare_predictions(reference: FirstPredictions, other: FirstPredictions) -> Fidelity | None:
    """Compare predictions row by row; None without a row in both."""
    rows = [row for row in reference if row in other]
    if not rows:
        return None
    pairs = [(reference[row][1], other[row][1]) for row in rows]
    kl = [round(divergence(a, b), DIGITS + 2) for a, b in pairs if a is not None and b is not None]
    same = [int(reference[row][0] == other[row][0]) for row in rows]
    return Fidelity(rows, same, kl if len(kl) == len(rows) else None)


class AnswerFiles(Protocol):
    """A folder of runs, or several."""

    def answers(self, identity: str, dataset: str) -> Path:
        """Return the file of one benchmark's predictions, which may be missing."""


class FidelityCache:
    """Compares the stored predictions of two runs: `cache(reference, run, dataset)`.

    Reading all predictions of all runs for each leaderboard would take minutes on full benchmarks. So this class, alone
    among those that read results, writes: it keeps what it computed in `<identity>/<benchmark>.fidelity.json` and uses
    that while neither file of predictions changes. Such a file may be deleted at any time; in a folder that cannot be
    written, nothing is kept.

    Args:
        stored: the folder or folders of the runs, whose records were read.
        note: called with the reason why stored predictions are not compared. By default it is an error.
    """

    def __init__(self, stored: AnswerFiles, note: Callable[[str], None] = refuse) -> None:
        self._stored, self._note = stored, note
        self._references: dict[Path, FirstPredictions] = {}

    def __call__(self, reference: RunRecord, run: RunRecord, dataset: str) -> Fidelity | None:
        """Compare two runs on one benchmark, on rows that neither left out; None without any or with a damaged line."""
        base, own = (self._stored.answers(one.identity, dataset) for one in (reference, run))
        if not (base.is_file() and own.is_file()):
            return None
        entries = [entry for one in (reference, run) if (entry := one.datasets.get(dataset)) is not None]
        out = {row for entry in entries for row in entry.faulty}
        state: list[str | int] = [
            reference.identity,
            *(number for file in (base, own) for number in _state(file)),
            *sorted(out),
        ]
        path = own.with_suffix(".fidelity.json")
        kept = _read_kept(path)
        if kept is not None and kept.state == state:
            return kept.fidelity
        try:
            if base not in self._references:
                self._references[base] = _read_predictions(base)
            predictions = {row: one for row, one in _read_predictions(own).items() if row not in out}
        except UserError as error:
            self._note(f"not compared: {error}")
            return None
        result = compare_predictions(self._references[base], predictions)
        if result is not None:
            text = to_json(_Kept(state=state, fidelity=result).model_dump())
            with contextlib.suppress(UserError), explain_write(path):
                write_atomically(path, text + "\n")
        return result


class _Kept(Strict):
    """Content of a cache file."""

    state: list[str | int]
    """Run, files and rows that were compared."""
    fidelity: Fidelity
    """The result."""


def _read_predictions(path: Path) -> FirstPredictions:
    """Read texts and first tokens of a file of predictions, without rows that the model could not be given."""
    stored = prediction_lines(path).read()
    return {one.index: (one.prediction, one.first) for one in stored if one.error is None}


def _state(path: Path) -> tuple[int, int]:
    """Return size and time of change, which differ once a file's content does."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _read_kept(path: Path) -> _Kept | None:
    """Read what was computed before; None for a file that is missing, was cut or has another form."""
    try:
        return _Kept.model_validate(from_json(path.read_bytes()))
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class FidelityEstimate:
    """Fidelity of one run, with intervals.

    Attributes:
        agreement: share of equal predictions, in percent.
        kl: mean first-token KL in nats; None unless it is known of every row.
    """

    agreement: Estimate
    kl: Estimate | None

    def certain(self) -> FidelityEstimate:
        """Return the same values without intervals."""
        return FidelityEstimate(self.agreement.certain(), self.kl and self.kl.certain())


def estimate_fidelity(
    runs: Mapping[str, Fidelity], clusters: Mapping[str, str] | None, name: str
) -> dict[str, FidelityEstimate]:
    """Estimate the fidelity of several runs on one benchmark; runs with the same rows are resampled together.

    Args:
        runs: identity -> fidelity, row by row.
        clusters: row -> cluster, such as its image. None if it is unknown: then there are no intervals.
        name: the benchmark, which seeds the resampling.
    """
    by_rows: dict[tuple[str, ...], dict[str, Fidelity]] = defaultdict(dict)
    for run, fidelity in runs.items():
        by_rows[tuple(fidelity.rows)][run] = fidelity
    found: dict[str, FidelityEstimate] = {}
    for rows, members in by_rows.items():
        same = np.stack([100.0 * np.array(one.same) for one in members.values()])
        agreements = resampled_means(rows, clusters or {}, same, name, SHARE)
        known = {run: np.array(one.kl) for run, one in members.items() if one.kl is not None}
        each = resampled_means(rows, clusters or {}, np.stack([*known.values()]), name, POSITIVE) if known else []
        kls = dict(zip(known, each, strict=True))
        for run, agreement in zip(members, agreements, strict=True):
            found[run] = FidelityEstimate(agreement, kls.get(run))
    return found if clusters is not None else {run: one.certain() for run, one in found.items()}
