"""Stored lines are on disk before the call returns, not only in a buffer of the system."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from uniprune.utils.files import JsonLines, write_atomically


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Contents of files at the moment they were synced."""
    seen: list[bytes] = []

    def fsync(handle: int) -> None:
        with open(f"/proc/self/fd/{handle}", "rb") as file:  # noqa: PTH123  (no path of a file system)
            seen.append(file.read())

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs the open files of a Linux process")
@pytest.mark.parametrize(
    ("write", "content"),
    [
        (lambda path: JsonLines(path, dict, "a line", "x").append([{"a": 1}]), b'{"a": 1}\n'),
        (lambda path: JsonLines(path, dict, "a line", "x").rewrite([{"a": 2}]), b'{"a": 2}\n'),
        (lambda path: write_atomically(path, "text"), b"text"),
    ],
    ids=["append", "rewrite", "write"],
)
def test_it_is_synced_whole(write: Callable[[Path], None], content: bytes, tmp_path: Path, synced: list[bytes]) -> None:
    write(tmp_path / "file.jsonl")
    assert synced == [content]
    assert (tmp_path / "file.jsonl").read_bytes() == content
