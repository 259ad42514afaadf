"""`compare`: our results and the numbers that papers print."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "compare stored runs with the tables of papers"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `compare`."""
    parser.add_argument("--paper", metavar="TABLE", help="a table, e.g. uniprunebench-table3 (default: list them)")
    parser.add_argument("--output", type=Path, default=Path("results"), metavar="DIR", help="folder of the runs")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write every number of the table as CSV")
    parser.add_argument("--mini", action="store_true", help="use the runs of `sweep --mini`, on embedded stand-ins")


def act(options: argparse.Namespace) -> int:
    """List the tables, or print one with our numbers, the runs that are missing and their cost."""
    from uniprune.errors import UserError
    from uniprune.reports.papers.report import list_tables, show_table

    if options.paper is not None:
        show_table(options.paper, options.output, options.csv, options.mini)
    elif options.csv is not None:
        raise UserError("--csv writes one table; name it with --paper (without options, compare lists them)")
    else:
        list_tables(options.output, options.mini)
    return 0
