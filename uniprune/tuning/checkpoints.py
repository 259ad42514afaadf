"""Checkpoints of an unfinished training, as the Trainer stores them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path


def last_checkpoint(folder: Path, required: Sequence[str] = ()) -> Path | None:
    """Return the newest complete checkpoint in a run's folder, or None.

    Args:
        folder: the run's folder.
        required: files that a checkpoint must have in addition to the Trainer's.
    """
    complete = [path for path in folder.glob("checkpoint-*") if _complete(path, required)]
    return max(complete, key=step_of, default=None)


def step_of(checkpoint: Path | None) -> int:
    """Return the number of optimizer steps of a checkpoint, 0 for None."""
    match = re.search(r"(\d+)$", checkpoint.name) if checkpoint else None
    return int(match.group(1)) if match else 0


def _complete(checkpoint: Path, required: Sequence[str]) -> bool:
    """Check whether the Trainer's last file is whole, which is not written atomically, and the required files exist."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_bytes())
    except (OSError, ValueError):
        return False
    return all((checkpoint / name).exists() for name in required)
