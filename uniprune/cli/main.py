"""Entry point of the command line: commands, exit codes, one-line errors. Commands import heavy packages themselves."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from uniprune.cli import COMMANDS, discover
from uniprune.cli.parser import nearest, parse
from uniprune.errors import UserError
from uniprune.utils.paths import PROGRAM, ROOT
from uniprune.utils.plain_output import survive
from uniprune.utils.setup import prepare

DONE, FAILED, USER, INTERRUPTED = 0, 1, 2, 130
RESUME = "interrupted; every finished batch is stored: run the same command again to resume"
"""Last line of an interrupted command that stores as it goes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = None
    try:
        survive(sys.stdout, sys.stderr)
        words = list(sys.argv[1:] if argv is None else argv)
        if words and not words[0].startswith("-") and words[0] not in COMMANDS:
            known = f"{nearest(words[0], COMMANDS)}; commands: {', '.join(COMMANDS)}"
            return _exit(f"error: unknown command {words[0]!r}{known}", USER)
        if not words or words[0] not in (*COMMANDS, "-h", "--help", "--version"):
            words.insert(0, "run")
        # A command needs the packages of no other.
        commands = discover(words[:1] if words[0] in COMMANDS else COMMANDS)
        options = parse(commands, words)
        if options.imports_torch or options.plugin:
            prepare(options.plugin, debug=options.debug)
        code = int(commands[options.command].act(options))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _exit(RESUME if options is not None and options.resumes else "interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of stdout has exited (`… | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        return _explained(error, options)


def _explained(error: Exception, options: argparse.Namespace | None) -> int:
    """Print an error in one line, with `--debug` after its traceback, and return the exit code."""
    if options is None:  # the command could not be imported
        name = getattr(error, "name", None) or ""
        if not isinstance(error, ModuleNotFoundError) or name.startswith("uniprune"):
            raise error
        return _exit(f"error: the package {name} is missing from {sys.executable}; {_needed()}", USER)
    if options.debug:
        traceback.print_exc()
    if isinstance(error, UserError):
        return _exit(f"error: {error}", USER)
    return _exit(f"error: {type(error).__name__}: {error}\n(--debug shows where)", FAILED)


def _needed() -> str:
    """Return the remedy for a missing package."""
    if (ROOT / ".venv" / "bin" / "python").exists() and sys.prefix != str(ROOT / ".venv"):
        return f"run `. {ROOT / '.venv'}/bin/activate`, then `{PROGRAM}` again"
    return (
        "run `make demo` or `pip install -e .` in a checkout, or `pip install pydantic rich pillow`, which is all that "
        "bench needs with torch and transformers"
    )


def _exit(message: str, code: int) -> int:
    """Print a message to stderr and return the exit code."""
    sys.stderr.write(message + "\n")
    return code
