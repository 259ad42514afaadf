"""`report`: the stored runs as one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniprune.cli.folders import folder_argument, folders_of
from uniprune.errors import UserError
from uniprune.utils.console import say

HELP = "write the stored runs as one page: leaderboard, curves, methods, provenance, items"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `report`."""
    folder_argument(parser)
    parser.add_argument("--html", type=Path, required=True, metavar="FILE", help="page to write")
    parser.add_argument(
        "--items",
        type=int,
        default=20,
        metavar="N",
        help="items per benchmark with questions, images and predictions, those on which runs differ most first "
        "(default: 20; 0 for none)",
    )
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), metavar="DIR", help="folder of the benchmarks' files"
    )


def act(options: argparse.Namespace) -> int:
    """Write the page of all stored runs."""
    from uniprune.reports.page.items import ItemOptions
    from uniprune.reports.page.page import write_page
    from uniprune.results.fidelity import FidelityCache
    from uniprune.results.leaderboard import leaderboard

    if options.items < 0:
        raise UserError(f"--items {options.items} must be 0 or more items per benchmark")
    folders, doubts = folders_of(options), list[str]()
    records = folders.required(doubts.append)
    board = leaderboard(records, FidelityCache(folders, doubts.append), doubts)
    items = ItemOptions(options.items, options.data_dir, folders.answers)
    write_page(board, items, options.html, folders.roots)
    say(f"written: {options.html} ({options.html.stat().st_size / 1e6:.1f} MB)")
    return 0
