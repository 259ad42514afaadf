"""Provenance and measurements of every run on the page, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from uniprune.results.measurements import Quantity, Timing, TokenLedger
from uniprune.results.records import DatasetRecord, Environment, RunRecord
from uniprune.results.remarks import remark_counts

FAULTY = 20
"""Rows left out of a score that the page names, per benchmark; the record names all."""


class Provenance:
    """Runs as JSON; environments, which most runs share, are listed once.

    Attributes:
        environments: those of all runs so far.
    """

    def __init__(self) -> None:
        self.environments: list[dict[str, Any]] = []
        self._places: dict[str, int] = {}

    def run(self, record: RunRecord) -> dict[str, Any]:
        """Return a run: model, setup, and its benchmarks."""
        return {
            "model": _without_none(record.model.model_dump(mode="json")),
            "setup": record.setup.model_dump(mode="json"),
            "known_as": list(record.known_as),
            "datasets": {name: self._benchmark(entry) for name, entry in record.datasets.items()},
        }

    def _benchmark(self, entry: DatasetRecord) -> dict[str, Any]:
        """Return a benchmark of a run."""
        plain = {"ability", "suite", "data", "prompts", "images", "rows", "whole", "answered", "refused", "left_out"}
        fields = entry.model_dump(mode="json", include=plain | {"batching", "days"})
        score = entry.score
        return _without_none(
            fields
            | {
                "faulty": dict(list(entry.faulty.items())[:FAULTY]),
                "out": len(entry.faulty),
                "remarks": [f"{one} {one.words}" for one in remark_counts([entry])],
                "environments": [self._place(one) for one in entry.environments],
                "timing": entry.timing and _times(entry.timing),
                "ledger": entry.ledger and _tokens(entry.ledger),
                "score": score and score.model_dump(mode="json", exclude={"per_item", "clusters", "parts", "details"}),
            }
        )

    def _place(self, one: Environment) -> int:
        """Return the place of an environment in the list, where it is added if it is new."""
        key = one.model_dump_json()
        if key not in self._places:
            self._places[key] = len(self.environments)
            self.environments.append(one.model_dump(mode="json"))
        return self._places[key]


def runs(records: Iterable[RunRecord]) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Return identity -> run, and the environments that they name by their place."""
    provenance = Provenance()
    return {record.identity: provenance.run(record) for record in records}, provenance.environments


def _times(timing: Timing) -> dict[str, Any]:
    """Return medians and quartile distances in ms, and what they are measured on."""
    fields = {name: getattr(timing, name) for name in Timing.model_fields}
    spans = {name: one for name, one in fields.items() if isinstance(one, Quantity)}
    others = _without_none({name: one for name, one in fields.items() if name not in spans})
    return {"spans": {name: [round(one.median, 4), round(one.iqr, 4)] for name, one in spans.items()}, **others}


def _tokens(ledger: TokenLedger) -> dict[str, Any]:
    """Return visual tokens, operations and cache of a row."""
    fields = _without_none(ledger.model_dump(mode="json"))
    return fields | {"layers": [round(tokens, 2) for tokens in ledger.layers]}


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
