"""The command line: what may be typed, and how failures are told. Heavy imports wait until a command runs."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from uniprune import __version__
from uniprune.errors import UserError

DONE, FAILED, USER, INTERRUPTED = 0, 1, 2, 130
COMMANDS = ("run", "list", "leaderboard", "check", "cards")

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
    if not words or (words[0] not in COMMANDS and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "run")
    options = build_parser().parse_args(words)
    try:
        from uniprune import commands

        commands.prepare(options.plugin, debug=options.debug)
        return commands.ACTIONS[options.command](options)
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


def build_parser() -> argparse.ArgumentParser:
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
    commands = parser.add_subparsers(dest="command", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    add = partial(commands.add_parser, parents=[shared], formatter_class=raw, allow_abbrev=False)
    _add_run(add("run", help="evaluate methods on benchmarks", epilog=_EXAMPLES))
    listing = add("list", help="what there is")
    listing.add_argument("what", choices=("methods", "models", "benchmarks"))
    listing.add_argument("pattern", nargs="?", default="*", help="only names that match, e.g. 'random*'")
    listing.add_argument("--json", action="store_true", help="machine-readable")
    board = add("leaderboard", help="table of the stored runs")
    board.add_argument("--output", type=Path, default=Path("results"), metavar="DIR", help="folder of the runs")
    for kind in ("csv", "md", "html"):
        board.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"also write it as {kind.upper()}")
    check = add("check", help="does a method keep the rules? in seconds, on tiny random models")
    check.add_argument("target", metavar="FILE_OR_NAME", help="Python file that registers methods, or a method's name")
    check.add_argument("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="method fields")
    check.add_argument("--json", action="store_true", help="machine-readable")
    add("cards", help="a card per method, as Markdown")
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    """Options of `run`."""
    what = parser.add_argument_group("what to run")
    what.add_argument("--model", help="name in configs/models.yaml, hub id or folder")
    what.add_argument(
        "--method", nargs="+", metavar="NAME", help="one or more; a+b prunes with a, then with b the tokens a left"
    )
    what.add_argument("--ratio", nargs="+", type=float, help="share of visual tokens to keep, in (0, 1]")
    what.add_argument("--data", nargs="+", metavar="NAME", help="benchmarks; * matches")
    what.add_argument("--suite", help="all benchmarks of a suite (default: mini for the tiny models, ten otherwise)")
    what.add_argument("--limit", type=int, metavar="N", help="only the first N rows of each benchmark")
    how = parser.add_argument_group("how to prune")
    how.add_argument("--layer", type=int, help="decoder layer before which methods inside the model prune")
    how.add_argument("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="method fields")
    how.add_argument("--seed", type=int, default=0, help="seed of random choices")
    how.add_argument(
        "--protocol", choices=("site", "average"), default="site", help="the ratio holds at the layer / over all layers"
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, or balanced over all GPUs")
    machine.add_argument("--dtype", default="auto", help="auto, float32, float16 or bfloat16")
    machine.add_argument("--attn", default="auto", help="attention kernel: auto, sdpa, eager, flash_attention_2")
    machine.add_argument("--batch-size", type=int, default=8, metavar="N", help="rows answered together (default: 8)")
    machine.add_argument("--max-new-tokens", type=int, metavar="N", help="longest answer (default: the benchmark's)")
    files = parser.add_argument_group("files and judges")
    files.add_argument("--output", type=Path, default=Path("results"), metavar="DIR", help="folder of the runs")
    files.add_argument(
        "--data-dir", type=Path, default=Path("data"), metavar="DIR", help="folder of the benchmarks' files"
    )
    files.add_argument("--judge", help="'rule', or the URL of an OpenAI-compatible endpoint (mini suite: rule)")
    files.add_argument("--judge-model", metavar="NAME", help="model at that endpoint")


def _tell(message: str, code: int) -> int:
    """Say it on stderr; the exit code passes through."""
    sys.stderr.write(message + "\n")
    return code
