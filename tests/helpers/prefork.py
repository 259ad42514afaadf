"""Run pytest on a copy of the repository, in a process that starts with the large libraries imported.

Importing torch, transformers and pandas takes longer than most test files. A server process imports them once, and
nothing of this repository stays imported in it; every run is a fork of it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

LIMIT = 280.0
"""Seconds after which a run is killed."""
OURS = ("uniprune", "tests", "__mp_main__")
"""Packages that a run must import from the copy; the last one is the program that started the run."""


def pytest_in(copy: Path, *words: str) -> tuple[int, str]:
    """Run pytest in a copy of the repository.

    Args:
        copy: the copy's root, the working folder of the run.
        words: pytest's command line.

    Returns:
        Pytest's exit status and the end of its output.

    Raises:
        RuntimeError: the run ended without a status of pytest's, imported a module of this repository from elsewhere
            than the copy, or did not end within `LIMIT`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.large_libraries"])
    copy = copy.resolve()
    output = copy / "output.txt"
    output.touch()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(copy, words, output, sender))
    process.start()
    sender.close()
    try:
        status = receiver.recv() if receiver.poll(LIMIT) else None
    except EOFError:
        status = None
    process.kill()
    process.join()
    text = output.read_text(encoding="utf-8", errors="replace")[-4000:]
    if status is None:
        raise RuntimeError(f"pytest {' '.join(words)} did not end as it should:\n{text}")
    return status, text


def _run(copy: Path, words: tuple[str, ...], output: Path, status: Connection) -> None:
    """Run pytest on nothing but the copy, and send its status."""
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    original = Path(__file__).resolve().parents[2]
    for name in _ours():
        del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != original]
    os.chdir(copy)
    found = pytest.main([*words])
    files = [file for name in _ours() if (file := getattr(sys.modules[name], "__file__", None))]
    strays = [file for file in files if not Path(file).resolve().is_relative_to(copy)]
    if strays:
        raise RuntimeError(f"imported from elsewhere than the copy: {strays}")
    status.send(int(found))


def _ours() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] in OURS]
