"""Hashes that name things, and random generators made of names: equal in every process and on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def stable_hash(value: Any) -> str:
    """Hash a plain value: first 16 hex digits of the sha256 of its canonical JSON form.

    Keys are sorted, so that equal mappings have equal hashes.

    Raises:
        TypeError: the value holds something that JSON does not have.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def files_hash(files: Iterable[tuple[str, Path]]) -> str:
    """Hash files by their given names and their contents, 16 hex digits; neither order nor folder counts."""
    digests = []
    for name, path in files:
        with path.open("rb") as file:
            digests.append([name, hashlib.file_digest(file, "sha256").hexdigest()])
    return stable_hash(sorted(digests))


def seeded_generator(*key: object) -> torch.Generator:
    """Return a CPU generator seeded by a key such as (seed, sample, image, layer)."""
    import torch

    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
