"""`leaderboard`: the table of the stored runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniprune.cli.terminal_table import show
from uniprune.errors import UserError
from uniprune.results.store import Store
from uniprune.utils.console import say, write
from uniprune.utils.paths import PROGRAM

HELP = "print the table of the stored runs"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `leaderboard`."""
    parser.add_argument("--output", type=Path, default=Path("results"), metavar="DIR", help="folder of the runs")
    parser.add_argument(
        "--equal-flops",
        action="store_true",
        help="print average scores at equal FLOPs instead, also into --csv and --md; the page of --html has both",
    )
    for kind in ("csv", "md", "html"):
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"also write it as {kind.upper()}")


def act(options: argparse.Namespace) -> int:
    """Print the leaderboard of all stored runs and write the requested files."""
    from uniprune.results.fidelity import FidelityCache
    from uniprune.results.leaderboard import leaderboard

    store = Store(options.output)
    doubts: list[str] = []
    records = store.read_all(doubts.append)
    if not records:
        for doubt in doubts:
            say(doubt)
        raise UserError(
            f"no run is stored in {str(options.output)!r}; `{PROGRAM}` makes some, --output names their folder"
        )
    board = leaderboard(records, FidelityCache(store, doubts.append), doubts)
    table = board.equal_flops() if options.equal_flops else board
    show(table, "the file of --csv")
    for path, content in ((options.csv, table.csv), (options.md, table.markdown), (options.html, board.html)):
        if path is not None:
            write(path, content())
            say(f"written: {path}")
    return 0
