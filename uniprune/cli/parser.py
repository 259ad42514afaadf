"""The parser of the command line: mistakes are one line each, with the nearest name."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from uniprune import __version__
from uniprune.utils.paths import PROGRAM

_EXAMPLES = f"""\
examples:
  {PROGRAM}                                          the run of configs/default.yaml, on the embedded model
  {PROGRAM} --method A B --ratio 0.111 0.333         two methods at two ratios
  {PROGRAM} --model FOLDER --method A+B --layer 2    first A, then B before decoder layer 2
  {PROGRAM} list methods                             names for A and B
  {PROGRAM} leaderboard --csv board.csv
  {PROGRAM} check my_method.py                       check a new method on tiny models

exit codes: 0 done, 1 failed, 2 wrong input, 130 interrupted
"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line; usage is left to --help."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and one line."""
        if choice := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message):
            message += nearest(choice[1], re.findall(r"[\w-]+", choice[2]))
        self.exit(2, f"error: {message}; {self.prog} --help lists all\n")


def build_parser(commands: Mapping[str, ModuleType]) -> Parser:
    """Build the parser of some commands."""
    shared = Parser(add_help=False)
    shared.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="Python file that registers methods, models or benchmarks",
    )
    shared.add_argument("--debug", action="store_true", help="show tracebacks and library messages")

    parser = Parser(
        prog=PROGRAM,
        description="Benchmark visual token pruning. Without a command: run.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"uniprune {__version__}")
    _add_commands(parser, commands, shared)
    return parser


def subparsers(commands: Mapping[str, ModuleType]) -> dict[str, Parser]:
    """Return the parser of each command."""
    return _add_commands(Parser(prog=PROGRAM), commands, Parser(add_help=False))


def _add_commands(parser: Parser, commands: Mapping[str, ModuleType], shared: Parser) -> dict[str, Parser]:
    """Add commands, which have the options of `shared`, and return their parsers."""
    named, found = parser.add_subparsers(dest="command", required=True), {}
    for name, command in commands.items():
        subparser = found[name] = named.add_parser(
            name,
            parents=[shared],
            help=command.HELP,
            description=command.HELP,
            epilog=_EXAMPLES if name == "run" else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        # Commands that only read spare the import of torch; those that store as they go can be continued.
        subparser.set_defaults(imports_torch=True, resumes=False, parser=subparser)
        command.arguments(subparser)
    return found


def parse(commands: Mapping[str, ModuleType], words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; exit with code 2 and one line where it is wrong."""
    options, strange = build_parser(commands).parse_known_args([_expanded(word) for word in words])
    if strange:
        known = re.findall(r"--[\w-]+", options.parser.format_usage())
        first = strange[0].partition("=")[0]
        what = "option" if first.startswith("-") else "word"
        options.parser.error(f"unknown {what} {first!r}{nearest(first, known)}")
    return options


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'leaderboard'?`, or nothing where no known word is near."""
    near = difflib.get_close_matches(word, [*known], n=2, cutoff=0.7)
    return f", did you mean {' or '.join(map(repr, near))}?" if near else ""


def _expanded(word: str) -> str:
    """Return a word with the home folder in place of "~" in `--option=~/path`, which shells leave as it is."""
    option, sign, value = word.partition("=")
    if sign and re.fullmatch(r"--[\w-]+", option) and value.startswith("~"):
        return f"{option}={Path(value).expanduser()}"
    return word
