"""The option `--output` of commands that read: one or more folders."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniprune.results.folders import ResultFolders


def folder_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--output`."""
    parser.add_argument(
        "--output",
        type=Path,
        nargs="+",
        action="extend",
        metavar="DIR",
        help="folders of the runs, several are read as one (default: results)",
    )


def folders_of(options: argparse.Namespace) -> ResultFolders:
    """Return the folders that `--output` names."""
    return ResultFolders(options.output or [Path("results")])
