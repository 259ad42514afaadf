"""`python run.py download`: download the files of benchmarks and check them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.filesize import decimal

from uniprune.errors import UserError
from uniprune.evaluation.collection import dataset_names
from uniprune.registry import BENCHMARKS
from uniprune.utils.console import say
from uniprune.utils.paths import PROGRAM

HELP = "download the files of benchmarks"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `download`."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks; * is a wildcard")
    parser.add_argument("--suite", help="all benchmarks of a suite")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="folder of the files")


def act(options: argparse.Namespace) -> int:
    """Download missing files; one that fails does not stop the others."""
    if not options.names and options.suite is None:
        raise UserError(f"nothing to download; name benchmarks or a --suite (`{PROGRAM} list benchmarks`)")
    failures = []
    chosen = dataset_names(options.names, "") + (dataset_names(None, options.suite) if options.suite else [])
    for name in dict.fromkeys(chosen):
        source = BENCHMARKS.entry(name).metadata.get("source")
        if source is None:
            say(f"{name}: needs no file")
            continue
        sys.stderr.write(f"{name} …\n")
        try:
            file = source.fetch(options.data_dir)
        except UserError as error:
            failures.append(str(error))
            continue
        say(f"{name}: {file.path} ({decimal(file.size)}, checked)")
    if failures:
        raise UserError("\n".join(failures))
    return 0
