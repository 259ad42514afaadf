"""`merge`: copy the runs of several folders into one."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniprune.errors import UserError
from uniprune.utils.terminal import say_wrapped

HELP = "copy the runs of several folders into one"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `merge`."""
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders of runs, which stay as they are")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder that gets all runs; it may have some already"
    )
    parser.set_defaults(imports_torch=False)


def act(options: argparse.Namespace) -> int:
    """Merge the folders, or refuse if two answer a row of a run differently."""
    from uniprune.results.merge import merge
    from uniprune.results.store import Store

    for folder in options.folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; name folders of runs")
    for line in merge(options.folders, options.output):
        say_wrapped(line)
    doubts: list[str] = []
    for _ in Store(options.output).records(doubts.append):
        pass
    for doubt in doubts:
        say_wrapped(doubt)
    return 0
