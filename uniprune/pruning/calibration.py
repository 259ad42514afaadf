"""Settings that a method finds by looking at prompts of the un-pruned model: what `python run.py calibrate` runs.

A method opts in by naming a dataclass as its class variable `calibration`. Its fields are what the search can be told
(`--search field=value`); it is shown one prompt at a time, then everything it saw. What a prompt showed is stored at
once, so that a search goes on where it was interrupted.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from uniprune.utils.files import explain_write, write_atomically
from uniprune.utils.hashing import stable_hash

if TYPE_CHECKING:
    from torch import Tensor


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
    """A search, made with its own settings. Holds nothing else.

    Attributes:
        decides: fields that only `result` reads; what was seen under other values of them is used again.
    """

    decides: ClassVar[frozenset[str]]

    def observe(self, model: Any, inputs: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """What one prompt with images shows, at most some megabytes; `inputs` are the model's for a batch of one."""

    def result(self, seen: Sequence[Mapping[str, Tensor]]) -> Found:
        """What follows from the prompts seen. Raises UserError when nothing does, saying what to change."""


class Notes:
    """What prompts showed to a search, one file each; whole or absent, whatever interrupts.

    Args:
        root: folder of all notes.
        setup: all that they depend on beside the prompt, as JSON values; notes of another setup are never mixed in.
    """

    def __init__(self, root: Path, setup: Mapping[str, Any]) -> None:
        self.folder = root / stable_hash(setup)

    def read(self, prompt: str) -> dict[str, Tensor] | None:
        """What is stored of a prompt; None if nothing is, or nothing readable."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(self._path(prompt).read_bytes())
        except (FileNotFoundError, SafetensorError):
            return None

    def write(self, prompt: str, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Store what a prompt showed, and return it as `read` will. Raises UserError when it cannot be written."""
        from safetensors.torch import save

        path, kept = self._path(prompt), {name: value.cpu().contiguous() for name, value in seen.items()}
        with explain_write(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, save(kept))
        return kept

    def _path(self, prompt: str) -> Path:
        return self.folder / f"{stable_hash(prompt)}.safetensors"
