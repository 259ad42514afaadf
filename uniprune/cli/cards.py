"""`python run.py cards`: docs/methods.md on standard output."""

from __future__ import annotations

import argparse

from uniprune.reports.method_cards import cards
from uniprune.utils.console import say

HELP = "a card per method, as Markdown"


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes no options."""


def act(options: argparse.Namespace) -> int:
    """Print a card per registered method."""
    say(cards().rstrip("\n"))
    return 0
