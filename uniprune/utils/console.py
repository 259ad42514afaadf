"""Output of commands: results on stdout, everything else on stderr, files written atomically."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from uniprune.utils.files import explain_write, write_atomically


def write(path: Path, content: str) -> None:
    """Write a file atomically, creating its folder.

    Raises:
        UserError: it cannot be written.
    """
    with explain_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def say(line: str) -> None:
    """Print one line of results, to stdout."""
    sys.stdout.write(line + "\n")


class ResultConsole(Console):
    """A console on standard output."""

    def on_broken_pipe(self) -> None:
        """Leave a reader that has exited (`… | head`) to the caller; rich would end the process with code 1."""
        raise BrokenPipeError


def stdout(needed: int = 240) -> Console:
    """Return standard output; if that is no terminal, `needed` characters wide."""
    return ResultConsole(width=None if sys.stdout.isatty() else needed)


class RunProgress:
    """A progress bar over all rows of all runs of a command (a context manager).

    Args:
        rows: rows of all runs, those with a prediction included.
        console: the console to print on.
    """

    def __init__(self, rows: int, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("loading", total=rows)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar."""
        self._bar.stop()

    def begin(self, label: str) -> None:
        """Show the current piece of work."""
        self._bar.update(self._task, description=label)

    def advance(self, rows: int) -> None:
        """Add to the rows that are done."""
        self._bar.advance(self._task, rows)

    def reach(self, rows: int) -> None:
        """Set the rows that are done."""
        self._bar.update(self._task, completed=rows)

    def say(self, text: str) -> None:
        """Print a line that stays above the bar."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def byte_progress(console: Console) -> Progress:
    """Return a bar over bytes, with speed and time left; it vanishes when done and is shown on terminals only."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
