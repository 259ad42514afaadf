"""`python run.py tune`: fine-tune with pairs of sample and token pruning, and compare them."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniprune.utils.paths import ROOT

HELP = "fine-tune with sample and token pruning, and compare"
DEFAULT = ROOT / "configs" / "qtuning" / "embedded.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `tune`."""
    parser.add_argument(
        "file", nargs="*", type=Path, default=[DEFAULT], help="tuning files (default: the embedded set)"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/tuning"), metavar="DIR", help="folder of the runs")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="instead of the file's")
    parser.add_argument("--only", nargs="+", metavar="PAIR", help="only these pairs of the file, by label; * matches")


def act(options: argparse.Namespace) -> int:
    """Perform every run of every file, then print and write the comparison."""
    from uniprune.tuning.comparison import compare

    for file in options.file:
        compare(file, options.output, options.seeds, options.only)
    return 0
