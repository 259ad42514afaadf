"""What a sweep would still cost, before anything is run: rows, and a rough estimate of GPU hours.

    hours = sum over runs and benchmarks of rows x milliseconds per row / 3 600 000

Milliseconds per row are those measured in stored runs of the same model and benchmark. Where there are none they are
assumed from configs/cost.yaml: parameters x (time of a prompt + answer length x time of a token). Pruning is not
credited, so pruned runs are overestimated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import yaml
from pydantic import BaseModel, ConfigDict

from uniprune.evaluation.config import RunSpec
from uniprune.registry import BENCHMARKS
from uniprune.reports.papers.measures import DIRECT
from uniprune.reports.papers.runs import Runs
from uniprune.utils.paths import ROOT

COST = ROOT / "configs" / "cost.yaml"


class Assumptions(BaseModel):
    """What is assumed of an unknown run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str
    """The GPU meant."""
    prompt_ms_per_billion: float
    """Milliseconds from the picture to the first token, per billion parameters."""
    token_ms_per_billion: float
    """Milliseconds per further token, per billion parameters."""
    answer_tokens: float
    """Length of an answer."""
    long_answers: dict[str, float]
    """Benchmark -> length, where it is another."""
    billions: dict[str, float]
    """Model -> parameters, in billions."""

    def milliseconds(self, model: str, benchmark: str) -> float | None:
        """Per row; None for a model of unknown size."""
        tokens = self.long_answers.get(benchmark, self.answer_tokens)
        size = self.billions.get(model)
        return None if size is None else size * (self.prompt_ms_per_billion + tokens * self.token_ms_per_billion)


@dataclass
class Cost:
    """Work left in a sweep.

    Attributes:
        cells, done: pairs of run and benchmark in all, and those scored already. rows: rows left to ask.
        hours: estimated GPU hours for them. measured: rows among them whose time was measured, not assumed.
        guessed: benchmarks whose number of rows is not documented. unknown: what the estimate has to leave out.
    """

    cells: int = 0
    done: int = 0
    rows: int = 0
    hours: float = 0.0
    measured: int = 0
    guessed: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


def read_assumptions(path: Path = COST) -> Assumptions:
    """configs/cost.yaml."""
    return Assumptions.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def cost(cells: Iterable[RunSpec], runs: Runs, assumptions: Assumptions) -> Cost:
    """What is left of a sweep. Raises UserError for an unknown benchmark."""
    total = Cost()
    for cell in cells:
        for benchmark in cell.data or ():
            total.cells += 1
            entries = runs.entries(cell.model, cell.choice, benchmark)
            if any(run.setup.seed == cell.choice.seed and entry.score for run, entry in entries):
                total.done += 1
            else:
                _add(total, cell, benchmark, runs, assumptions)
    return total


def _add(total: Cost, cell: RunSpec, benchmark: str, runs: Runs, assumptions: Assumptions) -> None:
    """Count what one benchmark of a run will take."""
    metadata = BENCHMARKS.entry(benchmark).metadata
    known = metadata.get("rows")
    rows = min(known, cell.limit or known) if known else cell.limit
    if rows is None:
        total.unknown.add(f"rows of {benchmark}")
        return
    total.rows += rows
    if not metadata.get("rows_known", True):
        total.guessed.add(benchmark)
    times = [DIRECT["total ms"](entry) for _, entry in runs.of(cell.model, benchmark)]
    seen = [time for time in times if time is not None]
    each = fmean(seen) if seen else assumptions.milliseconds(cell.model, benchmark)
    if each is None:
        total.unknown.add(f"size of {cell.model}")
        return
    total.hours += rows * each / 3_600_000
    total.measured += rows * bool(seen)
