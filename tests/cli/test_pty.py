"""Commands in a real terminal of 80 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.records import dataset, run
from tests.results.test_store import store

pytestmark = pytest.mark.end_to_end


def in_terminal(words: list[str], columns: int = 80) -> tuple[list[str], int]:
    """Return the lines that a command prints in a terminal, and its exit code."""
    child, handle = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        os.execv(sys.executable, [sys.executable, str(ROOT / "run.py"), *words])
    printed = b""
    while True:
        try:
            data = os.read(handle, 65536)
        except OSError:  # the end of a pseudo-terminal on Linux
            break
        if not data:
            break
        printed += data
    _, status = os.waitpid(child, 0)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode())
    return [line.rstrip() for line in text.replace("\r", "\n").split("\n")], os.waitstatus_to_exitcode(status)


def test_no_line_is_longer_than_the_terminal_and_nothing_is_cut(tmp_path: Path) -> None:
    names = [f"a-benchmark-of-a-long-name-{number}" for number in range(6)]
    store(tmp_path, *(run(method, dict.fromkeys(names, dataset([1.0, 0.0]))) for method in ("none", "one", "two")))
    for words in (
        ["leaderboard", "--output", str(tmp_path), "--columns", "all"],
        ["status", "--output", str(tmp_path), "--all"],
        ["list", "benchmarks"],
    ):
        lines, code = in_terminal(words)
        assert code == 0, lines
        assert max(map(len, lines)) <= 80, words
        assert "…" not in "".join(lines)
        if words[0] == "leaderboard":
            assert {*names} <= {*" ".join(lines).split()}
