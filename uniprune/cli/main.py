"""The command line: what may be typed, and how failures are told. Heavy imports wait until a command runs."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import ModuleType

from uniprune import __version__
from uniprune.cli import discover
from uniprune.errors import UserError
from uniprune.utils.setup import prepare

DONE, FAILED, USER, INTERRUPTED = 0, 1, 2, 130

_EXAMPLES = """\
examples:
  python run.py                                          what configs/default.yaml says, on the embedded model
  python run.py --method A B --ratio 0.111 0.333         two methods at two ratios
  python run.py --model FOLDER --method A+B --layer 2    first A, then B before decoder layer 2
  python run.py list methods                             names for A and B
  python run.py leaderboard --csv board.csv
  python run.py check my_method.py                       does it keep the rules of a method?

exit codes: 0 done, 1 the work failed, 2 something you must change, 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    commands = discover()
    if not words or (words[0] not in commands and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "run")
    options = build_parser(commands).parse_args(words)
    try:
        prepare(options.plugin, debug=options.debug)
        return int(commands[options.command].act(options))
    except KeyboardInterrupt:
        return _tell("interrupted; every finished batch is stored: run the same command again to resume", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has left (`… | head`); nothing can be told it any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        if isinstance(error, UserError):
            return _tell(f"error: {error}", USER)
        return _tell(f"error: {type(error).__name__}: {error}\n(--debug shows where)", FAILED)


def build_parser(commands: Mapping[str, ModuleType]) -> argparse.ArgumentParser:
    """The parser of all commands; `run` may be left out."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--plugin", action="append", default=[], metavar="FILE", help="Python file that registers more")
    shared.add_argument("--debug", action="store_true", help="show tracebacks and library messages")

    parser = argparse.ArgumentParser(
        prog="run.py",
        description="Benchmark visual token pruning. Without a command: run.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"uniprune {__version__}")
    named = parser.add_subparsers(dest="command", required=True)
    for name, command in commands.items():
        one = named.add_parser(
            name,
            parents=[shared],
            help=command.HELP,
            description=command.HELP,
            epilog=_EXAMPLES if name == "run" else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.arguments(one)
    return parser


def _tell(message: str, code: int) -> int:
    """Say it on stderr; the exit code passes through."""
    sys.stderr.write(message + "\n")
    return code
