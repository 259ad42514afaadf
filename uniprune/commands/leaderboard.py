"""`python run.py leaderboard`: the table of the stored runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniprune.console import say, show, write
from uniprune.errors import UserError
from uniprune.records import Store

HELP = "table of the stored runs"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `leaderboard`."""
    parser.add_argument("--output", type=Path, default=Path("results"), metavar="DIR", help="folder of the runs")
    for kind in ("csv", "md", "html"):
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"also write it as {kind.upper()}")


def act(options: argparse.Namespace) -> int:
    """Print the leaderboard of all stored runs and write it where asked."""
    from uniprune.leaderboard import leaderboard
    from uniprune.likeness import Likeness

    store = Store(options.output)
    records = list(store.records())
    if not records:
        raise UserError(
            f"no run is stored in {str(options.output)!r}; `python run.py` makes some, --output names their folder"
        )
    board = leaderboard(records, likeness=Likeness(store))
    show(board)
    for path, content in ((options.csv, board.csv), (options.md, board.markdown), (options.html, board.html)):
        if path is not None:
            write(path, content())
            say(f"written: {path}")
    return 0
