"""`doctor`: the installation, each finding with the command that mends it."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.text import Text

from uniprune.utils.console import say, stdout
from uniprune.utils.terminal import say_wrapped

HELP = "check the installation: Python, packages, GPU, kit, data, judge, hub"
STYLES = {"ok": "green", "note": "yellow", "missing": "bold red"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `doctor`."""
    parser.set_defaults(imports_torch=False)
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), metavar="DIR", help="folder of the benchmarks' files"
    )
    parser.add_argument("--output", type=Path, default=Path("results"), metavar="DIR", help="folder of the runs")
    parser.add_argument("--judge", metavar="URL", help="also try this judge")
    parser.add_argument("--judge-model", metavar="NAME", help="model at that endpoint")


def act(options: argparse.Namespace) -> int:
    """Print every finding as it is made; return 1 if something that every run needs is missing."""
    from uniprune.reports.installation import findings

    states = []
    for one in findings(options.data_dir, options.output, options.judge, options.judge_model):
        states.append(one.state)
        mark = Text(f"{one.state:<8}", STYLES[one.state])
        stdout().print(mark, Text(f"{one.what}: {one.detail}"), sep="", highlight=False, soft_wrap=True)
        if one.remedy:
            say_wrapped(f"-> {one.remedy}", indent=" " * 8)
    lacking = states.count("missing")
    say(f"{lacking} things are missing" if lacking else "everything that the embedded models need is there")
    return int(lacking > 0)
