"""`compare`: two runs item by item, or our results and the numbers that papers print."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniprune.cli.compare_items import compare_items, item_arguments
from uniprune.cli.folders import folder_argument, folders_of
from uniprune.errors import UserError
from uniprune.utils.console import say, write

HELP = "compare two runs item by item, or stored runs with the tables of papers"
FILTERS = ("method", "benchmark", "model", "tokens", "ratio")
"""Options that choose among printed numbers."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `compare`."""
    parser.set_defaults(imports_torch=False)
    parser.add_argument("--paper", metavar="TABLE", help="a table, e.g. uniprunebench-table3 (default: list them)")
    item_arguments(parser)
    folder_argument(parser)
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write every number, or item, as CSV")
    parser.add_argument("--mini", action="store_true", help="use the runs of `sweep --mini`, on embedded stand-ins")
    parser.add_argument("--printed", action="store_true", help="numbers that papers print, side by side")
    printed = parser.add_argument_group("--printed")
    for name in ("method", "benchmark", "model"):
        printed.add_argument(f"--{name}", metavar="NAME", help=f"only this {name}, by its printed name or ours")
    printed.add_argument("--tokens", type=float, metavar="N", help="only this number of visual tokens")
    printed.add_argument("--ratio", type=float, metavar="R", help="only this share of the visual tokens, e.g. 0.111")
    printed.add_argument("--html", type=Path, metavar="FILE", help="write a page, one plot per benchmark and budget")


def act(options: argparse.Namespace) -> int:
    """List the tables, print one with our numbers, or answer what papers print."""
    asked = [f"--{name}" for name in (*FILTERS, "html") if getattr(options, name) is not None]
    if options.runs:
        if len(options.runs) != 2:
            raise UserError(f"compare takes two runs or folders, not {len(options.runs)}: {' '.join(options.runs)}")
        if options.paper is not None or options.mini or options.printed or asked:
            raise UserError(
                "compare A B sets two runs side by side; leave out --paper, --mini, --printed and its filters"
            )
        return compare_items(options)
    if own := [f"--{name}" for name in ("show", "data", "pictures") if getattr(options, name) is not None]:
        raise UserError(f"{', '.join(own)} is about the items of two runs; name them: compare A B")
    if options.printed:
        if options.paper is not None or options.mini:
            raise UserError("--printed sets all papers side by side; leave out --paper and --mini")
        return _printed(options)
    if asked:
        raise UserError(f"{', '.join(asked)} is about printed numbers; add --printed")
    return _paper(options)


def _paper(options: argparse.Namespace) -> int:
    """List the tables, or print one with our numbers, the runs that are missing and their cost."""
    from uniprune.reports.papers.report import list_tables, show_paper

    if options.paper is not None:
        show_paper(options.paper, folders_of(options), options.csv, options.mini)
    elif options.csv is not None:
        raise UserError("--csv writes one table; name it with --paper (without options, compare lists them)")
    else:
        list_tables(folders_of(options), options.mini)
    return 0


def _printed(options: argparse.Namespace) -> int:
    """Print what papers print, and write the requested files."""
    from uniprune.reports.printed.answer import answer
    from uniprune.reports.printed.data import read_literature
    from uniprune.reports.printed.page import page
    from uniprune.reports.printed.query import Question
    from uniprune.reports.printed.show import show_answer, show_sources

    literature = read_literature()
    filters = {name: getattr(options, name) for name in FILTERS}
    chosen = any(value is not None for value in filters.values())
    if not chosen:
        show_sources(literature)
        if options.csv is options.html is None:
            return 0
    found = answer(Question(**filters), folders_of(options).records(say), literature)
    if chosen:
        show_answer(found)
    for path, content in ((options.csv, found.csv), (options.html, lambda: page(found))):
        if path is not None:
            write(path, content())
            say(f"written: {path}")
    return 0
