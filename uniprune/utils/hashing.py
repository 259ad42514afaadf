"""Hashes and seeded random generators that are equal in every process and on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def stable_hash(value: Any) -> str:
    """Hash a plain value: the first 16 hex digits of the sha256 of its canonical JSON form.

    The order of a mapping's keys does not matter. A tuple is hashed as a list, a key as its text, NaN and infinity by
    their names in Python.

    Raises:
        TypeError: JSON has no such type.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def files_hash(files: Iterable[tuple[str, Path]]) -> str:
    """Hash files by the given names and their contents: 16 hex digits. Neither order nor folders matter."""
    digests = []
    for name, path in files:
        with path.open("rb") as file:
            digests.append([name, hashlib.file_digest(file, "sha256").hexdigest()])
    return stable_hash(sorted(digests))


def seeded_generator(*key: object) -> torch.Generator:
    """Return a CPU generator seeded by the texts of a key such as (seed, sample, image, layer)."""
    import torch

    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
