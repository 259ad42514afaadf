"""Settings that a method finds by looking at prompts of the un-pruned model: what `python run.py calibrate` runs.

A method opts in by naming a dataclass as its class variable `calibration`. Its fields are what the search can be told
(`--search field=value`); it is shown one prompt at a time, then asked for what it found.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Found:
    """The outcome of a search.

    Attributes:
        ratio: keep ratio to run the method with. settings: field -> value, as `--set` takes them.
        summary: one line for people. evidence: what the outcome rests on, JSON values.
    """

    ratio: float
    settings: Mapping[str, Any]
    summary: str
    evidence: Mapping[str, Any]

    def words(self, method: str, file: str | None = None) -> str:
        """What to type to run the method as found; settings come from `file` when they were written to one."""
        texts = [f"{name}={json.dumps(value)}" for name, value in self.settings.items()]
        chosen = [f"@{file}"] if file and texts else texts
        return shlex.join(["--method", method, "--ratio", f"{self.ratio:.6g}", *["--set"] * bool(chosen), *chosen])


class Calibration(Protocol):
    """A search, made with its own settings. Holds what it has seen; one object serves one search."""

    def observe(self, model: Any, inputs: Mapping[str, Any]) -> None:
        """Look at one prompt with images; `inputs` are the model's arguments for a batch of one."""

    def result(self) -> Found:
        """What was found. Raises UserError when there is nothing, saying what to change."""
