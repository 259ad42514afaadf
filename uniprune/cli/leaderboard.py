"""`leaderboard`: the table of the stored runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from uniprune.cli.folders import folder_argument, folders_of
from uniprune.cli.terminal_table import USUAL, show
from uniprune.errors import UserError
from uniprune.utils.console import say, write
from uniprune.utils.json_text import to_json
from uniprune.utils.paths import PROGRAM

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
    rows = parser.add_argument_group("rows and columns")
    rows.add_argument("--model", nargs="+", default=(), metavar="NAME", help="only these models; * is a wildcard")
    rows.add_argument("--method", nargs="+", default=(), metavar="NAME", help="only these methods; * is a wildcard")
    rows.add_argument("--ratio", nargs="+", type=float, default=(), help="only these ratios, and the un-pruned model")
    rows.add_argument(
        "--columns", nargs="+", default=(), metavar="NAME", help="these columns, or 'all'; files have all by default"
    )
    rows.add_argument("--sort", default="", metavar="COLUMN", help="highest first; --sort=-COLUMN for the lowest")
    files = parser.add_argument_group("files")
    for kind in ("csv", "md", "json"):
        files.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"also write it as {kind.upper()}")
    files.add_argument("--html", type=Path, metavar="FILE", help="also write the page of `report`, without items")
    files.add_argument("--latex", type=Path, metavar="FILE", help="also write a table for a paper (booktabs)")
    files.add_argument(
        "--model-index", type=Path, metavar="FILE", help="also write the scores as metadata of a model card (YAML)"
    )


def act(options: argparse.Namespace) -> int:
    """Print the leaderboard of all stored runs and write the requested files."""
    from uniprune.results.fidelity import FidelityCache
    from uniprune.results.latex import latex
    from uniprune.results.leaderboard import leaderboard
    from uniprune.results.model_index import model_index
    from uniprune.results.selection import Selection, plain_rows

    folders = folders_of(options)
    doubts: list[str] = []
    records = folders.required(doubts.append)
    chosen = Selection(options.model, options.method, options.ratio, options.columns, options.sort)
    board = chosen.rows(leaderboard(records, FidelityCache(folders, doubts.append), doubts))
    if options.equal_flops and (options.latex or options.model_index):
        raise UserError("--latex and --model-index are of the leaderboard itself; leave out --equal-flops")
    table = chosen.table(board.equal_flops() if options.equal_flops else board)
    usual = table if options.equal_flops else chosen.table(board, [*USUAL, *board.benchmarks])
    show(usual, "--columns all", complete=bool(options.columns))
    if hidden := len(table.columns) - len(usual.columns):
        say(f"{hidden} more columns: --columns all, or the file of --csv")
    words = [
        f"--{name} {' '.join(map(str, value))}"
        for name in ("model", "method", "ratio")
        if (value := getattr(options, name))
    ]
    files: tuple[tuple[Path | None, Callable[[], str]], ...] = (
        (options.csv, table.csv),
        (options.md, table.markdown),
        (options.json, lambda: to_json({"rows": plain_rows(table), "notes": [*table.notes]}, indent=1) + "\n"),
        (options.latex, lambda: latex(chosen.sorted(board), table.columns, " ".join([PROGRAM, "leaderboard", *words]))),
        (options.model_index, lambda: model_index(board)),
    )
    for path, content in files:
        if path is not None:
            write(path, content())
            say(f"written: {path}")
    if options.html is not None:
        from uniprune.reports.page.items import ItemOptions
        from uniprune.reports.page.page import write_page

        write_page(board, ItemOptions(0, Path(), folders.answers), options.html, folders.roots)
        say(f"written: {options.html}")
    return 0
