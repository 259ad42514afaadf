"""What a user sees while runs go on: one bar with the time left on a terminal, one line per benchmark elsewhere."""

from __future__ import annotations

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
