"""`python run.py cards`: print docs/methods.md, or write the table of docs/models.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniprune.utils.console import say, write

HELP = "print a card per method as Markdown, or update a page's table of model families"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `cards`."""
    parser.add_argument(
        "--models",
        type=Path,
        metavar="FILE",
        help="write the table of families into this page (docs/models.md) instead",
    )


def act(options: argparse.Namespace) -> int:
    """Print a card per registered method, or rewrite the table of a page."""
    if options.models is None:
        from uniprune.reports.method_cards import cards

        say(cards().rstrip("\n"))
        return 0
    from uniprune.reports.model_cards import with_cards
    from uniprune.utils.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    write(options.models, with_cards(options.models.read_text(encoding="utf-8")))
    say(f"written: {options.models}")
    return 0
