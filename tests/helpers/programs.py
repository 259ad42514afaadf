"""Run programs of this checkout in processes that start with the large libraries imported.

That saves the seconds of their imports. Start and end of an interpreter differ from a program's at a terminal: of every
kind of program a test starts one by its command line.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.helpers.paths import ROOT

RUN = str(ROOT / "run.py")


def places(number: int) -> list[dict[str, str]]:
    """Return the environment variables that a launcher sets, by process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    return [{"RANK": str(rank), "LOCAL_RANK": str(rank), **shared} for rank in range(number)]


class Program:
    """A running program, with what tests use of `subprocess.Popen`.

    Attributes:
        pid: number of its process.
    """

    def __init__(self, words: list[str], *, module: str = "", environment: Mapping[str, str] | None = None) -> None:
        """Start it.

        Args:
            words: its command line.
            module: the module to run as `python -m` does; `run.py` if empty.
            environment: environment variables besides this process's.
        """
        self._folder = tempfile.TemporaryDirectory()
        self._streams = tuple(Path(self._folder.name) / name for name in ("stdout", "stderr"))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.helpers.large_libraries"])
        arguments = (words, module, {**os.environ, **(environment or {})}, self._streams)
        self._process = context.Process(target=_run, args=arguments)
        self._process.start()
        self.pid = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    @property
    def printed(self) -> tuple[str, str]:
        """Its standard output and error so far."""
        out, err = (file.read_text(encoding="utf-8") if file.exists() else "" for file in self._streams)
        return out, err

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end and return its standard output and error.

        Raises:
            TimeoutError: it did not end in `timeout` seconds; it is killed.
        """
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise TimeoutError(f"a program runs for more than {timeout} s:\n{self.printed[1]}")
        return self.printed


def _run(words: list[str], module: str, environment: dict[str, str], streams: tuple[Path, Path]) -> None:
    """Become the program."""
    for number, file in enumerate(streams, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.argv = [module or RUN, *words]
    if module:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(RUN, run_name="__main__")
