"""`python run.py check FILE_OR_NAME`: does a method keep the rules?"""

from __future__ import annotations

import argparse

HELP = "does a method keep the rules? in seconds, on tiny random models"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `check`."""
    parser.add_argument("target", metavar="FILE_OR_NAME", help="Python file that registers methods, or a method's name")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="method fields")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def act(options: argparse.Namespace) -> int:
    """Make all conformance checks of one method, or of the methods a file registers."""
    from uniprune.conformance.command import check

    return check(options)
