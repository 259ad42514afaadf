"""The commands of `python run.py`, one module each.

Every module named in `COMMANDS` is a command. It defines `HELP` (one line), `arguments(parser)`, which adds its
options, and `act(options)`, which does it and returns the exit code. Modules are imported to build the parser, so what
is heavy (torch, transformers, pandas) is imported inside `act`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

COMMANDS = (
    "run",
    "analyse", "bench", "calibrate", "cards", "check", "compare", "download", "leaderboard", "list", "sweep", "tune",
)  # fmt: skip


def discover() -> dict[str, ModuleType]:
    """Import every command: name -> module, `run` first, the others by name."""
    return {name: importlib.import_module(f"{__name__}.{name}") for name in COMMANDS}
