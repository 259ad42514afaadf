"""What commands print and write: results to stdout, everything else to stderr, files whole or not at all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from uniprune.utils.files import explain_write, write_atomically

if TYPE_CHECKING:
    pass
from types import TracebackType
from typing import Self

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


def write(path: Path, content: str) -> None:
    """Write a whole file. Raises UserError when that is not possible."""
    with explain_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def say(line: str) -> None:
    """One line of results: those go to stdout, everything else to stderr."""
    sys.stdout.write(line + "\n")


def stdout(needed: int = 240) -> Console:
    """Standard output; when it is no terminal, as wide as what will be printed needs."""
    return Console(width=None if sys.stdout.isatty() else needed)


class RunProgress:
    """Progress over all rows of all runs of one command (a context manager).

    Args:
        rows: rows to ask in all, stored ones included. console: where to show it.
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
        """Say what is being asked now."""
        self._bar.update(self._task, description=label)

    def advance(self, rows: int) -> None:
        """Count rows as done."""
        self._bar.advance(self._task, rows)

    def reach(self, rows: int) -> None:
        """Set how many rows are done."""
        self._bar.update(self._task, completed=rows)

    def say(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def byte_progress(console: Console) -> Progress:
    """A bar over the bytes of a file with speed and time left, gone when it is done; nothing but on a terminal."""
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
