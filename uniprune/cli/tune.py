"""`python run.py tune`: fine-tune with pairs of sample and token pruning, and compare them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from uniprune.utils.paths import ROOT

if TYPE_CHECKING:
    from uniprune.tuning.comparison import TuningComparison
    from uniprune.tuning.summary import SummaryTable

HELP = "fine-tune with sample and token pruning, and compare"
DEFAULT = ROOT / "configs" / "qtuning" / "embedded.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tune`."""
    parser.set_defaults(resumes=True)
    parser.add_argument(
        "file", nargs="*", type=Path, default=[DEFAULT], help="tuning files (default: the embedded comparison)"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/tuning"), metavar="DIR", help="folder of the runs")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="seeds that replace the file's")
    parser.add_argument("--only", nargs="+", metavar="PAIR", help="only these pairs of the file, by label; * matches")


def act(options: argparse.Namespace) -> int:
    """Perform the missing runs of every file, then print and write their comparison."""
    from uniprune.tuning.comparison import run_comparison

    for file in options.file:
        folder = options.output / file.stem
        comparison = run_comparison(file, folder, options.seeds, options.only)
        if comparison is not None:
            show(comparison, folder)
    return 0


def show(comparison: TuningComparison, folder: Path) -> None:
    """Print a comparison, then write it to a folder: a full disk prevents no output."""
    from uniprune.utils.console import say

    for title, table in comparison.tables.items():
        say(f"\n{title}")
        show_table(table)
    for line in comparison.lines:
        say(line)
    say(f"\nreport: {comparison.write(folder)}")


def show_table(table: SummaryTable) -> None:
    """Print a table."""
    from uniprune.utils import terminal

    terminal.show_table([terminal.Column(name, right=i > 0) for i, name in enumerate(table.columns)], table.rows)
