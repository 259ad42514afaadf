"""Stored answers of one benchmark in one run: append-only JSON lines.

They survive kills, full disks and second processes. Each line is one row, an `Prediction`. A batch is written with one call
and forced to disk before the next one starts, so a kill loses at most the batch in flight; a line cut short by it is
dropped when the file is opened again.

Where several processes share a benchmark, process 0 holds `<benchmark>.jsonl` and every other one a part beside it.
Process 0 takes the parts in at the end; those that a death left behind are taken in by whoever opens the file next.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict

from uniprune.results.records import Flops
from uniprune.utils.files import JsonLines, explain_write


class FirstToken(BaseModel):
    """Distribution of an answer's first token, cut to its most likely ones."""

    model_config = ConfigDict(frozen=True)

    ids: list[int]
    """Token ids, most likely first."""
    logs: list[float]
    """Their natural log-probabilities."""
    rest: float
    """Probability of all other tokens together."""


class Prediction(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(frozen=True)

    index: str
    """The row's id."""
    prediction: str
    """The model's answer; empty where `error` is set."""
    spans: dict[str, float] | None = None
    """Seconds per span, this row's share of its batch."""
    new_tokens: float | None = None
    """Tokens generated for this row."""
    first: FirstToken | None = None
    """Distribution of the answer's first token, cut to the most likely ones."""
    batch: int = 1
    """Rows answered together."""
    visual_tokens: list[int] | None = None
    """Visual tokens entering each decoder layer."""
    requested: float | None = None
    """What the budget asked the mean of `visual_tokens` to be; absent where the method chooses."""
    initial: int | None = None
    """Visual tokens before pruning."""
    text_tokens: int | None = None
    """Text tokens of the prompt."""
    flops: Flops | None = None
    """Operations of the prefill."""
    kv_bytes: int | None = None
    """Keys and values of the prompt in the cache after the prefill."""
    ttft: float | None = None
    """Seconds to the first token of the batch."""
    tpot: float | None = None
    """Seconds per further token of the batch."""
    peak_bytes: int | None = None
    """Most GPU memory in use while the batch was answered."""
    error: str | None = None
    """Why the row could not be asked."""


class Predictions:
    """The predictions of one benchmark, closed to other processes inside the block (a context manager).

    Args:
        path: the JSON lines file.
        waiting: called once when another process holds the file, before waiting for it.
    """

    def __init__(self, path: Path, waiting: Callable[[Path], None] = lambda _: None) -> None:
        self.path = path
        self.answers: dict[str, Prediction] = {}
        self._waiting, self._lines = waiting, prediction_lines(path)

    def __enter__(self) -> Self:
        """Take the lock and read what is stored. Raises UserError when a line in the middle is damaged."""
        with ExitStack() as stack:
            stack.enter_context(self._lines.locked(self._waiting))
            self.answers = {answer.index: answer for answer in self._lines.read()}
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the next process in."""
        self._stack.close()

    def append(self, answers: Iterable[Prediction]) -> None:
        """Store a batch: all of it is on disk when this returns.

        Raises:
            UserError: it cannot be written (disk full, …); the file then holds what it held before.
        """
        batch = list(answers)
        self._lines.append(answer.model_dump(exclude_none=True) for answer in batch)
        self.answers.update((answer.index, answer) for answer in batch)

    def take_in(self) -> None:
        """Move what is stored in parts into this file, waiting for processes that still write to them."""
        for path in parts(self.path):
            with Predictions(path, self._waiting) as part, explain_write(path):
                self.append(answer for index, answer in part.answers.items() if index not in self.answers)
                part._lines.remove()

    def know(self, whole: Path) -> None:
        """Count as stored what the file holds of which this one is a part. Raises UserError if that is damaged."""
        self.answers.update((answer.index, answer) for answer in prediction_lines(whole).read())


def prediction_lines(path: Path) -> JsonLines[Prediction]:
    """Return the file of one benchmark's predictions."""
    remedy = "delete that line and run the same command again: only its row is asked again"
    return JsonLines(path, Prediction.model_validate, "a stored answer", remedy)


def part(path: Path, rank: int) -> Path:
    """Where process `rank`, from 1 on, stores its answers to the benchmark of `path`."""
    return path.with_suffix(f".part{rank}.jsonl")


def parts(path: Path) -> list[Path]:
    """The parts that lie beside a file."""
    return sorted(path.parent.glob(f"{glob.escape(path.stem)}.part*.jsonl"))


def stored_rows(path: Path) -> int:
    """Rows stored in a file and its parts, whoever writes to them at the moment."""
    return sum(file.read_bytes().count(b"\n") for file in (path, *parts(path)) if file.exists())
