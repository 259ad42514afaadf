"""`python run.py cards`: print docs/methods.md."""

from __future__ import annotations

import argparse

from uniprune.reports.method_cards import cards
from uniprune.utils.console import say

HELP = "print a card per method as Markdown"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add no options."""


def act(options: argparse.Namespace) -> int:
    """Print a card per registered method."""
    say(cards().rstrip("\n"))
    return 0
