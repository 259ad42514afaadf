"""The commands of `python run.py`, one module each.

A module here is a command of its name. It defines `HELP` (one line), `arguments(parser)`, which adds its options, and
`act(options)`, which does it and returns the exit code. Modules are imported to build the parser, so what is heavy
(torch, transformers, pandas) is imported inside `act`.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def discover() -> dict[str, ModuleType]:
    """Name -> module of every command, `run` first, the others by name."""
    names = sorted((info.name for info in pkgutil.iter_modules(__path__)), key=lambda name: (name != "run", name))
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}
