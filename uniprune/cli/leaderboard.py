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
    for kind in ("csv", "md", "html"):
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"also write it as {kind.upper()}")


def act(options: argparse.Namespace) -> int:
    """Print the leaderboard of all stored runs and write the requested files."""
    from uniprune.results.fidelity import FidelityCache
    from uniprune.results.leaderboard import leaderboard

    store = Store(options.output)
    doubts: list[str] = []
    records = list(store.records(doubts.append))
    if not records:
        for doubt in doubts:
            say(doubt)
        raise UserError(
            f"no run is stored in {str(options.output)!r}; `{PROGRAM}` makes some, --output names their folder"
        )
    board = leaderboard(records, FidelityCache(store, doubts.append), doubts)
    show(board)
    for path, content in ((options.csv, board.csv), (options.md, board.markdown), (options.html, board.html)):
        if path is not None:
            write(path, content())
            say(f"written: {path}")
    return 0
