"""The commands of `python run.py`, one module each; a hyphen in a name is an underscore in its module's.

A command's module defines `HELP` (one line), `arguments(parser)`, which adds its options, and `act(options)`, which
executes it and returns the exit code. Modules are imported to build the parser, so heavy packages (torch, transformers,
pandas) are imported inside `act`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType

COMMANDS = (
    *("run", "sweep", "list", "download", "show", "leaderboard", "report", "compare", "merge", "export", "analyse"),
    *("check", "cards", "calibrate", "bench", "serve-bench", "tune"),
    *("status", "doctor", "completion"),
)
"""In the order of the help text: evaluation, then methods, then speed and fine-tuning, then the installation."""


def discover(names: Sequence[str] = COMMANDS) -> dict[str, ModuleType]:
    """Import commands: name -> module."""
    return {name: importlib.import_module(f"{__name__}.{name.replace('-', '_')}") for name in names}
