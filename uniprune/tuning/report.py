"""HTML report of one comparison: settings, tables, figures and removed tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from uniprune.tuning.figures import planes, trajectories
from uniprune.tuning.instruction_data import Sample
from uniprune.tuning.step_log import StepLine
from uniprune.tuning.summary import QUADRANTS, FinishedRun, SummaryTable, by_pair
from uniprune.tuning.tuning_data import TuningData

PAGES = Path(__file__).parent / "pages"
CASES = 12
"""Samples with removed tokens that are shown of a run."""


class TokenCase(NamedTuple):
    """A sample whose tokens were removed in one step.

    Attributes:
        title: step, row, quadrant and kind.
        tokens: (state, text) of each token; the state is "prompt", "kept" or "removed".
    """

    title: str
    tokens: list[tuple[str, str]]


class RunSection(NamedTuple):
    """The part of the page about one run.

    Attributes:
        title: label and seed.
        plane: figure of the error-uncertainty plane, None if it was not measured.
        cases: samples whose tokens were removed.
    """

    title: str
    plane: Markup | None
    cases: list[TokenCase]


def report_page(
    name: str,
    runs: Sequence[FinishedRun],
    data: TuningData,
    tables: Mapping[str, SummaryTable],
    lines: Sequence[str],
) -> str:
    """Render the report as one HTML file without external references.

    Args:
        name: of the tuning file.
        runs: finished runs, in the order of the file.
        data: inputs of the runs.
        tables: title -> table.
        lines: results in sentences.
    """
    environment = Environment(loader=FileSystemLoader(PAGES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html").render(
        name=name,
        runs=runs,
        lines=lines,
        tables=tables,
        trajectories=_markup(trajectories(runs)),
        sections=list(_sections(runs, data)),
        problems=data.problems,
    )


def removed_tokens(
    steps: Sequence[StepLine], samples: Mapping[int, Sample], tokenizer: Any, count: int = CASES
) -> list[TokenCase]:
    """Return about `count` samples whose tokens were removed, evenly spread over the training."""
    cases = [(line.step, batch.index[place], batch.quadrant[place] if batch.quadrant else None, removed)
             for line in steps for batch in line.batches for place, removed in batch.removed.items()]  # fmt: skip
    if not cases:
        return []
    spread = sorted({round(i * (len(cases) - 1) / max(1, count - 1)) for i in range(count)})
    return [_case(*cases[i], samples, tokenizer) for i in spread]


def _case(
    step: int, index: int, quadrant: int | None, removed: list[int], samples: Mapping[int, Sample], tokenizer: Any
) -> TokenCase:
    sample = samples[index]
    place_of = {int(position): place for place, position in enumerate(sample.answer)}
    tokens = []
    for position, token in enumerate(sample.ids.tolist()):
        place = place_of.get(position)
        state = "prompt" if place is None else "removed" if place in removed else "kept"
        tokens.append((state, tokenizer.decode([token])))
    about = [f"step {step + 1}", f"row {index}", QUADRANTS[quadrant] if quadrant else "", sample.kind]
    return TokenCase(", ".join(filter(None, about)), tokens)


def _sections(runs: Sequence[FinishedRun], data: TuningData) -> Iterator[RunSection]:
    """Yield the first run of the method and of each variant, or of every pair if there is none."""
    kind_of = {sample.index: sample.kind for sample in data.train if sample.kind}
    samples = {sample.index: sample for sample in data.train}
    shown = [run for run in runs if run.record.choice.role in ("method", "variant")] or runs
    for label, group in by_pair(shown).items():
        run = group[0]
        plane = planes(run.step_log.steps, kind_of) if run.record.choice.role != "variant" else None
        cases = removed_tokens(run.step_log.steps, samples, data.tokenizer)
        yield RunSection(f"{label}, seed {run.record.seed}", _markup(plane), cases)


def _markup(figure: str | None) -> Markup | None:
    """Mark a figure as HTML that needs no escaping: matplotlib has escaped the texts in it."""
    return None if figure is None else Markup(figure)
