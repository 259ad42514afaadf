"""`report`: the stored runs as one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniprune.errors import UserError
from uniprune.utils.console import say
from uniprune.utils.paths import PROGRAM

HELP = "write the stored runs as one page: leaderboard, curves, methods, provenance, items"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `report`."""
    parser.add_argument("--output", type=Path, default=Path("results"), metavar="DIR", help="folder of the runs")
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
    from uniprune.results.store import Store

    if options.items < 0:
        raise UserError(f"--items {options.items} must be 0 or more items per benchmark")
    store, doubts = Store(options.output), list[str]()
    records = list(store.records(doubts.append))
    if not records:
        for doubt in doubts:
            say(doubt)
        raise UserError(
            f"no run is stored in {str(options.output)!r}; `{PROGRAM}` makes some, --output names their folder"
        )
    board = leaderboard(records, FidelityCache(store, doubts.append), doubts)
    items = ItemOptions(options.items, options.data_dir, lambda run, name: store.root / run / f"{name}.jsonl")
    write_page(board, items, options.html)
    say(f"written: {options.html} ({options.html.stat().st_size / 1e6:.1f} MB)")
    return 0
