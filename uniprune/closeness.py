"""Fidelity of several runs to one reference, with intervals: what was found row by row, under one cluster bootstrap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from uniprune.fidelity import Fidelity
from uniprune.stats import Estimate, resampled_means


@dataclass(frozen=True)
class Closeness:
    """Fidelity as estimates.

    Attributes:
        agreement: equal answers in percent. kl: of the first token, in nats; None unless it is known of every answer.
    """

    agreement: Estimate
    kl: Estimate | None

    def certain(self) -> Closeness:
        """The same without intervals."""
        return Closeness(replace(self.agreement, clusters=0), self.kl and replace(self.kl, clusters=0))


def closeness(told: Mapping[str, Fidelity], clusters: Mapping[str, str] | None, name: str) -> dict[str, Closeness]:
    """Run -> closeness on benchmark `name`. Runs that answered the same rows are resampled together.

    `clusters` say which rows share a picture; None if nobody knows, and then there are no intervals.
    """
    together: dict[tuple[str, ...], dict[str, Fidelity]] = defaultdict(dict)
    for run, fidelity in told.items():
        together[tuple(fidelity.rows)][run] = fidelity
    found: dict[str, Closeness] = {}
    for rows, runs in together.items():
        same = [100.0 * np.array(one.same) for one in runs.values()]
        known = {run: np.array(one.kl) for run, one in runs.items() if one.kl is not None}
        estimates = resampled_means(rows, clusters or {}, np.stack([*same, *known.values()]), name)
        kls = dict(zip(known, estimates[len(runs) :], strict=True))
        for run, agreement in zip(runs, estimates, strict=False):
            found[run] = Closeness(replace(agreement, share=True), kls.get(run))
    return found if clusters is not None else {run: one.certain() for run, one in found.items()}
