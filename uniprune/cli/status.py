"""`status`: progress of a grid, read from its folder in another terminal."""

from __future__ import annotations

import argparse
import time
from datetime import timedelta
from math import ceil
from pathlib import Path

from uniprune.errors import UserError
from uniprune.utils.console import say
from uniprune.utils.terminal import columns, say_wrapped, show_table

HELP = "progress of the runs in a folder, from another terminal"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `status`."""
    parser.set_defaults(imports_torch=False)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE.yaml", help="grid, to count runs not begun")
    parser.add_argument("--output", type=Path, default=Path("results"), metavar="DIR", help="folder of the runs")
    parser.add_argument("--every", type=float, metavar="SECONDS", help="print again so often, until Ctrl-C")
    parser.add_argument("--all", action="store_true", help="also the runs of which everything begun is scored")


def act(options: argparse.Namespace) -> int:
    """Print the progress once, or again and again."""
    if options.every is not None and options.every <= 0:
        raise UserError(f"--every {options.every:g} must be above 0 seconds")
    while True:
        _show(options)
        if options.every is None:
            return 0
        say("")
        time.sleep(options.every)


def _show(options: argparse.Namespace) -> None:
    """Print every unfinished run, those that stopped first, and the totals."""
    from uniprune.reports.progress import not_begun, progress
    from uniprune.results.store import Store

    store, doubts = Store(options.output), list[str]()
    records = list(store.records(doubts.append))
    found = progress(store, records)
    shown = [one for one in found if options.all or one.state != "scored"]
    if shown:
        heads = columns("run", "state", right=("scored", "rows", "last row", "left"), prose=("identity",))
        rows = [
            (
                *(one.label, one.state, f"{one.scored} of {one.begun}", f"{one.stored} of {one.rows}"),
                *("–" if one.idle is None else f"{_duration(one.idle)} ago", _duration(one.left), one.identity),
            )
            for one in shown
        ]
        show_table(heads, rows)
    states = [one.state for one in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("scored", "running", "stopped"))
    say(f"{len(found)} runs: {counts}; {sum(one.stored for one in found)} of {sum(one.rows for one in found)} rows")
    if "stopped" in states:
        say_wrapped("stopped: no row for two minutes; running the same command again resumes the run")
    if options.file is not None:
        from uniprune.evaluation.config import read_sweep

        cells = read_sweep(options.file).cells()
        waiting = not_begun(cells, records)
        say_wrapped(f"{len(waiting)} of {len(cells)} runs of {options.file} are not begun: {', '.join(waiting[:6])}")
    for doubt in doubts:
        say_wrapped(doubt)


def _duration(seconds: float | None) -> str:
    """Format as hours, minutes and seconds."""
    return "–" if seconds is None else str(timedelta(seconds=ceil(seconds)))
