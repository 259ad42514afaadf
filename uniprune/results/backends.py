"""Answers of a serving engine beside those of the model in the process of a run, for the same method and rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from uniprune.results.fidelity import DIGITS
from uniprune.results.predictions import Prediction, prediction_lines
from uniprune.results.records import RunRecord
from uniprune.results.store import Store

OF_THE_BACKEND = {"serving", "attention", "tower_attention", "device"}
"""Fields of `Setup` in which a run may differ from its twin on the other backend."""
STEP = 10**-DIGITS
"""Distance of stored log-probabilities, which are rounded."""
NAMED = 3
"""Rows that differ, named at most."""


@dataclass(frozen=True)
class Agreement:
    """A served run beside its twin in this process, on the rows that both have answered.

    Attributes:
        served: the served run.
        twin: the other one.
        rows: rows compared.
        answers: rows with equal texts.
        tokens: rows with equal numbers of visual tokens.
        log: largest difference of log-probability that the most likely first token has in the two; None if unknown.
        different: "benchmark row" of rows with other texts.
    """

    served: RunRecord
    twin: RunRecord
    rows: int
    answers: int
    tokens: int
    log: float | None
    different: tuple[str, ...]

    def __str__(self) -> str:
        """Return one line for a terminal."""
        setup = self.served.setup
        method = setup.method.name if setup.method.kind == "none" else f"{setup.method.name} {setup.ratio:g}"
        engine = f"{setup.serving.engine} {setup.serving.version}" if setup.serving else ""
        logs = "" if self.log is None else f", first tokens' log-probabilities within {max(self.log, STEP):.1g}"
        named = ", ".join(self.different[:NAMED]) + f" and {len(self.different) - NAMED} more" * (
            len(self.different) > NAMED
        )
        random = "; it draws at random, and a server seeds by image, not by row" * any(self.served.random)
        return (
            f"{self.served.model.name} {method}, {engine} against transformers ({self.twin.identity}): {self.answers} "
            f"of {self.rows} answers equal, {self.tokens} of {self.rows} numbers of visual tokens{logs}"
            + f"; other answers: {named}" * bool(named)
            + random
        )


def agreements(store: Store, records: Sequence[RunRecord], identities: Iterable[str]) -> list[Agreement]:
    """Compare served runs with their twins in a folder.

    Args:
        store: the folder.
        records: all its runs.
        identities: of the served runs; those that are not served, or have no twin, are left out.

    Raises:
        UserError: stored predictions cannot be read.
    """
    wanted = set(identities)
    usual = {_key(record): record for record in records if record.setup.serving is None}
    pairs = [
        (record, usual[_key(record)])
        for record in records
        if record.identity in wanted and record.setup.serving is not None and _key(record) in usual
    ]
    found = [_agreement(store, *pair) for pair in pairs]
    return [one for one in found if one.rows]


def _key(record: RunRecord) -> str:
    """Return what two runs share that differ in their backend only."""
    return record.setup.model_dump_json(exclude=OF_THE_BACKEND)


def _agreement(store: Store, served: RunRecord, twin: RunRecord) -> Agreement:
    """Compare two runs on the benchmarks whose rows are the same."""
    both = [
        name
        for name, entry in served.datasets.items()
        if (other := twin.datasets.get(name)) and (entry.data, entry.prompts) == (other.data, other.prompts)
    ]
    pairs = [
        (f"{name} {index}", one, theirs[index])
        for name in both
        for theirs in [_answers(store, twin, name)]
        for index, one in _answers(store, served, name).items()
        if index in theirs
    ]
    gaps = [gap for _, one, other in pairs if (gap := _gap(one, other)) is not None]
    return Agreement(
        served=served,
        twin=twin,
        rows=len(pairs),
        answers=sum(one.prediction == other.prediction for _, one, other in pairs),
        tokens=sum(one.visual_tokens == other.visual_tokens for _, one, other in pairs),
        log=max(gaps) if gaps else None,
        different=tuple(name for name, one, other in pairs if one.prediction != other.prediction),
    )


def _answers(store: Store, record: RunRecord, name: str) -> Mapping[str, Prediction]:
    """Return the stored predictions of a benchmark, without the rows that could not be asked."""
    path = store.root / record.identity / f"{name}.jsonl"
    return {one.index: one for one in prediction_lines(path).read() if one.error is None}


def _gap(one: Prediction, other: Prediction) -> float | None:
    """Return how much the log-probability differs that both give to the other's most likely first token."""
    if one.first is None or other.first is None:
        return None
    mine, theirs = (dict(zip(first.ids, first.logs, strict=True)) for first in (one.first, other.first))
    token = other.first.ids[0]
    return abs(mine[token] - theirs[token]) if token in mine else None
