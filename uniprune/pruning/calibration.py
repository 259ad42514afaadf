"""Searches for a method's settings on prompts of the un-pruned model, run by `python run.py calibrate`.

A method opts in by naming a subclass of `Calibration` as its class variable `calibration`. The search observes one
prompt at a time and then draws its conclusion from all observations. Each observation is stored at once, so that an
interrupted search resumes.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from uniprune.pruning.fields import validate
from uniprune.utils.files import explain_write, write_atomically
from uniprune.utils.hashing import stable_hash
from uniprune.utils.json_text import to_json

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Found:
    """The outcome of a search.

    Attributes:
        ratio: keep ratio to run the method with.
        settings: field -> value, as `--set` takes them.
        summary: the outcome in one line.
        evidence: observations that led to it, as JSON values.
    """

    ratio: float
    settings: Mapping[str, Any]
    summary: str
    evidence: Mapping[str, Any]

    def words(self, method: str, file: str | None = None) -> str:
        """Return the command-line options that run the method as found, with settings from `file` if they are there."""
        texts = [f"{name}={to_json(value)}" for name, value in self.settings.items()]
        chosen = [f"@{file}"] if file and texts else texts
        return shlex.join(["--method", method, "--ratio", f"{self.ratio:.6g}", *["--set"] * bool(chosen), *chosen])


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Base of all searches. Its fields are set by `--search field=value` and checked as those of methods are."""

    decides: ClassVar[frozenset[str]] = frozenset()
    """Fields that only `result` reads; observations made under other values of them are used again."""

    def __post_init__(self) -> None:
        validate(self)

    def observe(self, model: Any, inputs: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Observe one prompt with images: at most some megabytes. `inputs` are the model's for a batch of one."""
        raise NotImplementedError(f"{type(self).__name__} must implement observe(model, inputs)")

    def result(self, seen: Sequence[Mapping[str, Tensor]]) -> Found:
        """Conclude from the observations of all prompts.

        Raises:
            UserError: nothing follows from them, with the setting to change.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement result(seen)")


class Notes:
    """Stored observations of a search, one file per prompt, complete or absent after any interruption.

    Args:
        root: folder of all notes.
        setup: everything but the prompt that they depend on, as JSON values; notes of other setups are never mixed in.
    """

    def __init__(self, root: Path, setup: Mapping[str, Any]) -> None:
        self.folder = root / stable_hash(setup)

    def read(self, prompt: str) -> dict[str, Tensor] | None:
        """Load the observation of a prompt; None if none is stored or it cannot be read."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(self._path(prompt).read_bytes())
        except (FileNotFoundError, SafetensorError):
            return None

    def write(self, prompt: str, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Store the observation of a prompt, and return it as `read` will.

        Raises:
            UserError: it cannot be written.
        """
        from safetensors.torch import save

        path, kept = self._path(prompt), {name: value.cpu().contiguous() for name, value in seen.items()}
        with explain_write(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, save(kept))
        return kept

    def _path(self, prompt: str) -> Path:
        return self.folder / f"{stable_hash(prompt)}.safetensors"
