"""Cost of the runs that a sweep still lacks: rows, and a rough estimate of GPU hours.

A model with stored runs takes as long per row as the nearest of them: the forecast of `sweep --dry-run`. A model that
was never run takes, by configs/cost.yaml,

    milliseconds per row = billions of parameters x (time of a prompt + new tokens x time of a token)

Pruning is not credited in that, so pruned runs are overestimated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from uniprune.evaluation.config import RunSpec
from uniprune.evaluation.sweep import seconds_left
from uniprune.registry import BENCHMARKS
from uniprune.reports.papers.runs import StoredRuns
from uniprune.utils.paths import ROOT
from uniprune.utils.yaml_file import read_model

COST = ROOT / "configs" / "cost.yaml"


class Assumptions(BaseModel):
    """Assumptions about models that were never run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str
    """The GPU."""
    prompt_ms_per_billion: float
    """Milliseconds from the image to the first token, per billion parameters."""
    token_ms_per_billion: float
    """Milliseconds per further token, per billion parameters."""
    answer_tokens: float
    """New tokens of a row."""
    long_answers: dict[str, float]
    """Benchmark -> new tokens, where they are more."""
    billions: dict[str, float]
    """Model -> parameters, in billions."""

    def seconds(self, model: str, benchmark: str) -> float | None:
        """Return seconds per row; None for a model of unknown size."""
        tokens = self.long_answers.get(benchmark, self.answer_tokens)
        size = self.billions.get(model)
        if size is None:
            return None
        return size * (self.prompt_ms_per_billion + tokens * self.token_ms_per_billion) / 1000


@dataclass
class Cost:
    """Work left in a sweep.

    Attributes:
        pairs: pairs of run and benchmark in all.
        done: pairs that are scored.
        rows: rows left to run.
        seconds: estimated GPU time for them.
        measured: rows among them whose time follows from stored runs.
        guessed: benchmarks whose number of rows is not documented.
        unknown: reasons why something is left out of the estimate.
    """

    pairs: int = 0
    done: int = 0
    rows: int = 0
    seconds: float = 0.0
    measured: int = 0
    guessed: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


def read_assumptions(path: Path = COST) -> Assumptions:
    """Read configs/cost.yaml."""
    return read_model(path, Assumptions)


def cost(specs: Iterable[RunSpec], stored: StoredRuns, assumptions: Assumptions) -> Cost:
    """Return the work left in a sweep.

    Raises:
        UserError: an unknown benchmark.
    """
    total = Cost()
    for spec in specs:
        left = {}
        for benchmark in spec.data or ():
            total.pairs += 1
            if _scored(spec, benchmark, stored):
                total.done += 1
            elif (rows := _rows_left(spec, benchmark, stored)) is None:
                total.unknown.add(f"rows of {benchmark}")
            else:
                left[benchmark] = rows
                total.rows += rows
                if not BENCHMARKS.entry(benchmark).metadata.get("rows_known", True):
                    total.guessed.add(benchmark)
        _add_time(total, spec, left, stored, assumptions)
    return total


def _scored(spec: RunSpec, benchmark: str, stored: StoredRuns) -> bool:
    """Return whether a benchmark of a run is scored, with any row limit."""
    source = stored.find(spec.model, spec.choice, benchmark, spec.protocol)
    runs = zip(source.group.runs, source.entries, strict=True) if source else ()
    return any(run.setup.seed == spec.choice.seed and entry.score for run, entry in runs)


def _rows_left(spec: RunSpec, benchmark: str, stored: StoredRuns) -> int | None:
    """Return the rows of a benchmark that were not run; None if its number of rows is unknown."""
    known: int | None = BENCHMARKS.entry(benchmark).metadata.get("rows")
    rows = min(known, spec.limit or known) if known else spec.limit
    return None if rows is None else max(rows - stored.evaluated(spec, benchmark), 0)


def _add_time(total: Cost, spec: RunSpec, left: dict[str, int], stored: StoredRuns, assumptions: Assumptions) -> None:
    """Add the time of a run's rows."""
    ratio = spec.choice.pruner().ratio
    seconds = seconds_left(left, spec.choice.name, ratio, stored.on_usual_machine(spec.model))
    if seconds is not None:
        total.seconds += seconds
        total.measured += sum(left.values())
        return
    for benchmark, rows in left.items():
        assumed = assumptions.seconds(spec.model, benchmark)
        if assumed is None:
            total.unknown.add(f"size of {spec.model}")
        else:
            total.seconds += rows * assumed
