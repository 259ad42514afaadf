"""`leaderboard`: the table of the stored runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniprune.cli.folders import folder_argument, folders_of
from uniprune.cli.terminal_table import show
from uniprune.utils.console import say, write

HELP = "print the table of the stored runs"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `leaderboard`."""
    parser.set_defaults(imports_torch=False)
    folder_argument(parser)
    parser.add_argument(
        "--equal-flops",
        action="store_true",
        help="print average scores at equal FLOPs instead, also into --csv and --md",
    )
    for kind in ("csv", "md"):
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"also write it as {kind.upper()}")


def act(options: argparse.Namespace) -> int:
    """Print the leaderboard of all stored runs and write the requested files."""
    from uniprune.results.fidelity import FidelityCache
    from uniprune.results.leaderboard import leaderboard

    folders = folders_of(options)
    doubts: list[str] = []
    records = folders.required(doubts.append)
    board = leaderboard(records, FidelityCache(folders, doubts.append), doubts)
    table = board.equal_flops() if options.equal_flops else board
    show(table, "the file of --csv")
    for path, content in ((options.csv, table.csv), (options.md, table.markdown)):
        if path is not None:
            write(path, content())
            say(f"written: {path}")
    return 0
