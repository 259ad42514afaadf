"""`python run.py cards`: print docs/methods.md or docs/releases.md, or write a table of another page."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniprune.utils.console import say, write

HELP = "print a card per method as Markdown, or update a page's table of model families"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `cards`."""
    table = parser.add_mutually_exclusive_group()
    table.add_argument(
        "--releases",
        action="store_true",
        help="print what methods' releases do and their papers do not mention (docs/releases.md) instead",
    )
    table.add_argument(
        "--models",
        type=Path,
        metavar="FILE",
        help="write the table of families into this page (docs/models.md) instead",
    )
    table.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="write the table of the prompts that families take into this page (docs/prompts.md) instead",
    )


def act(options: argparse.Namespace) -> int:
    """Print a card per registered method, or rewrite the table of a page."""
    page: Path | None = options.models or options.prompts
    if page is None:
        from uniprune.reports.method_cards import cards
        from uniprune.reports.release_cards import release_cards

        say((release_cards if options.releases else cards)().rstrip("\n"))
        return 0
    from uniprune.reports import model_cards, prompt_cards
    from uniprune.utils.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    with_cards = model_cards.with_cards if options.models else prompt_cards.with_cards
    write(page, with_cards(page.read_text(encoding="utf-8")))
    say(f"written: {page}")
    return 0
