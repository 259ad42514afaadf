"""Entry point of the command line: parser, exit codes, one-line errors. Commands import heavy packages themselves."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import ModuleType

from uniprune import __version__
from uniprune.cli import COMMANDS, discover
from uniprune.errors import UserError
from uniprune.utils.paths import PROGRAM
from uniprune.utils.setup import prepare

DONE, FAILED, USER, INTERRUPTED = 0, 1, 2, 130

NEEDED = (
    "run `pip install -e .` in a checkout, or `pip install pydantic rich pillow`, which is all that bench needs with "
    "torch and transformers"
)
"""Remedy for a missing package."""
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in (*COMMANDS, "-h", "--help", "--version"):
        words.insert(0, "run")
    try:  # a command needs the packages of no other
        commands = discover(words[:1] if words[0] in COMMANDS else COMMANDS)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("uniprune"):
            raise
        return _exit(f"error: the package {error.name} is missing; {NEEDED}", USER)
    options = build_parser(commands).parse_args(words)
    try:
        if options.models or options.plugin:
            prepare(options.plugin, debug=options.debug)
        return int(commands[options.command].act(options))
    except KeyboardInterrupt:
        return _exit("interrupted; every finished batch is stored: run the same command again to resume", INTERRUPTED)
    except BrokenPipeError:  # the reader of stdout has exited (`… | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        if isinstance(error, UserError):
            return _exit(f"error: {error}", USER)
        return _exit(f"error: {type(error).__name__}: {error}\n(--debug shows where)", FAILED)


def build_parser(commands: Mapping[str, ModuleType]) -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="Python file that registers methods, models or benchmarks",
    )
    shared.set_defaults(models=True)  # False, as set by options that read data only, spares the import of torch
    shared.add_argument("--debug", action="store_true", help="show tracebacks and library messages")

    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Benchmark visual token pruning. Without a command: run.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"uniprune {__version__}")
    named = parser.add_subparsers(dest="command", required=True)
    for name, command in commands.items():
        subparser = named.add_parser(
            name,
            parents=[shared],
            help=command.HELP,
            description=command.HELP,
            epilog=_EXAMPLES if name == "run" else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.arguments(subparser)
    return parser


def _exit(message: str, code: int) -> int:
    """Print a message to stderr and return the exit code."""
    sys.stderr.write(message + "\n")
    return code
