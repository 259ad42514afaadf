"""`analyse`: the paper's findings, tested on the stored runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniprune.errors import UserError
from uniprune.results.remarks import row_notes
from uniprune.results.store import Store
from uniprune.utils.console import say, write
from uniprune.utils.paths import PROGRAM

HELP = "test the paper's findings on the stored runs"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `analyse`."""
    parser.add_argument("--output", type=Path, default=Path("results"), metavar="DIR", help="folder of the runs")
    parser.add_argument("--lines", type=int, default=12, metavar="N", help="tests shown per finding (default: 12)")
    parser.add_argument("--pairs", type=Path, metavar="FILE", help="also write every paired comparison as CSV")


def act(options: argparse.Namespace) -> int:
    """Print each finding with its verdict and tests, the surest first, or with the command that adds its runs."""
    from uniprune.reports.findings import FINDINGS, Study, pairs_csv
    from uniprune.results.budgets import budget_groups, budget_notes
    from uniprune.results.few import few_notes
    from uniprune.results.left_out import left_out_notes

    doubts: list[str] = []
    records = list(Store(options.output).records(doubts.append))
    for doubt in doubts:
        say(doubt)
    if not records:
        raise UserError(
            f"no run is stored in {str(options.output)!r}; `{PROGRAM}` makes some, --output names their folder"
        )
    study = Study(records)
    for examine in FINDINGS:
        finding = examine(study)
        say(finding.claim)
        say(f"   {finding.missing or finding.verdict}")
        for line in sorted(finding.lines, key=lambda line: line.p)[: options.lines]:
            say(f"   {line}")
        if (more := len(finding.lines) - options.lines) > 0:
            say(f"     … and {more} more (--lines)")
        say("")
    for note in row_notes((record, name) for record in records for name in record.datasets):
        say(note)
    say("Differences of average scores (0-100) with 95 % intervals; p is Holm-corrected within a finding, * below 5 %.")
    groups = study.comparison.groups
    for note in (*budget_notes(budget_groups(groups)), *few_notes(groups, study.comparison), *left_out_notes(groups)):
        say(note)
    if options.pairs is not None:
        write(options.pairs, pairs_csv(study))
        say(f"written: {options.pairs}")
    return 0
