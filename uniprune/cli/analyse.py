"""`analyse`: the paper's findings, tested on the stored runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from uniprune.cli.folders import folder_argument, folders_of
from uniprune.errors import UserError
from uniprune.results.records import RunRecord
from uniprune.results.remarks import row_notes
from uniprune.utils.console import say, write
from uniprune.utils.paths import PROGRAM

HELP = "test the paper's findings on the stored runs"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `analyse`."""
    parser.set_defaults(imports_torch=False)
    folder_argument(parser)
    parser.add_argument("--lines", type=int, default=12, metavar="N", help="tests shown per finding (default: 12)")
    parser.add_argument("--pairs", type=Path, metavar="FILE", help="also write every paired comparison as CSV")
    parser.add_argument(
        "--margin",
        type=float,
        default=2.0,
        metavar="POINTS",
        help="difference up to which scores are equal (default: 2)",
    )
    power = parser.add_argument_group("power", "before anything is run")
    power.add_argument(
        "--power",
        type=int,
        nargs="*",
        metavar="ROWS",
        help="print only which differences the stored benchmarks, and so many rows of them, show in 80 %% of cases",
    )
    power.add_argument(
        "--discordance",
        type=float,
        metavar="PERCENT",
        help="rows on which two methods differ, instead of those measured on the stored runs",
    )


def act(options: argparse.Namespace) -> int:
    """Print each finding with its verdict and tests, the surest first, or with the command that adds its runs."""
    from uniprune.reports.findings import FINDINGS, Study, pairs_csv
    from uniprune.results.budgets import budget_groups, budget_notes
    from uniprune.results.few import few_notes
    from uniprune.results.hard_columns import hard_notes
    from uniprune.results.left_out import left_out_notes

    doubts: list[str] = []
    folders = folders_of(options)
    records = folders.records(doubts.append)
    for doubt in doubts:
        say(doubt)
    if options.power is not None:
        return print_power(options, records)
    if options.discordance is not None:
        raise UserError("--discordance is of --power; add --power ROWS")
    if options.margin is not None and options.margin <= 0:
        raise UserError(f"--margin {options.margin:g} must be above 0: points within which two scores count as equal")
    if not records:
        raise UserError(f"no run is stored in {folders.names}; `{PROGRAM}` makes some, --output names their folder")
    study = Study(records) if options.margin is None else Study(records, options.margin)
    for examine in FINDINGS:
        finding = examine(study)
        say(finding.claim)
        say(f"   {finding.missing or finding.verdict}")
        for detail in finding.details[: options.lines]:
            say(f"   {detail}")
        if (more := len(finding.details) - options.lines) > 0:
            say(f"   … and {more} more (--lines)")
        for line in sorted(finding.lines, key=lambda line: line.p)[: options.lines]:
            say(f"   {line}")
        if (more := len(finding.lines) - options.lines) > 0:
            say(f"     … and {more} more (--lines)")
        say("")
    for note in row_notes((record, name) for record in records for name in record.datasets):
        say(note)
    say("Differences of average scores (0-100) with 95 % intervals; p is Holm-corrected within a finding, * below 5 %.")
    groups = study.comparison.groups
    for note in (
        *hard_notes(study.hard, study.pruned),
        *budget_notes(budget_groups(groups)),
        *few_notes(groups, study.comparison),
        *left_out_notes(groups),
    ):
        say(note)
    if options.pairs is not None:
        write(options.pairs, pairs_csv(study))
        say(f"written: {options.pairs}")
    return 0


def print_power(options: argparse.Namespace, records: Sequence[RunRecord]) -> int:
    """Print which differences some rows can show."""
    from uniprune.reports.findings import Study, power_lines

    share = None if options.discordance is None else options.discordance / 100
    if share is not None and not 0 < share <= 1:
        raise UserError(f"--discordance {options.discordance:g} must be above 0 and at most 100: a percentage of rows")
    if any(rows < 1 for rows in options.power):
        raise UserError(f"--power {' '.join(map(str, options.power))} must be numbers of rows above 0")
    lines = power_lines(Study(records) if records else None, options.power, share)
    if not lines:
        raise UserError(
            f"no pruned run is stored in {folders_of(options).names}; give --power the rows, such as --power 1000"
        )
    for line in lines:
        say(line)
    say("Paired t tests at 5 %, shown in 80 % of cases, for one choice of seeds; pairs: 5 % for any of them.")
    return 0
