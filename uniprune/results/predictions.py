"""Stored answers of one benchmark in one run: append-only JSON lines.

They survive kills, full disks and second processes. Each line is one row, an `Prediction`. A batch is written with one call
and forced to disk before the next one starts, so a kill loses at most the batch in flight; a line cut short by it is
dropped when the file is opened again.

Where several processes share a benchmark, process 0 holds `<benchmark>.jsonl` and every other one a part beside it.
Process 0 takes the parts in at the end; those that a death left behind are taken in by whoever opens the file next.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from uniprune.errors import UserError
from uniprune.utils.files import cut_short_line, explain_write, whole_lines
from uniprune.results.records import Flops


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
    """The open file, locked against other processes for as long as it is open (a context manager).

    Args:
        path: the JSON lines file.
        waiting: called once when another process holds the file, before waiting for it.
    """

    def __init__(self, path: Path, waiting: Callable[[Path], None] = lambda _: None) -> None:
        self.path = path
        self.answers: dict[str, Prediction] = {}
        self._waiting = waiting
        self._lock = FileLock(path.with_suffix(".lock"))

    def __enter__(self) -> Self:
        """Take the lock and read what is stored. Raises UserError when a line in the middle is damaged."""
        with explain_write(self.path):
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                self._waiting(self.path)
                self._lock.acquire()
        try:
            self.answers = {answer.index: answer for answer in self._read()}
            with explain_write(self.path):
                self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file and let the next process in."""
        os.close(self._file)
        self._lock.release()

    def append(self, answers: Iterable[Prediction]) -> None:
        """Store a batch: all of it is on disk when this returns.

        Raises:
            UserError: it cannot be written (disk full, …); the file then holds what it held before.
        """
        batch = list(answers)
        # ASCII: readers that split at every Unicode line end still see one row per line.
        lines = (json.dumps(answer.model_dump(exclude_none=True)) + "\n" for answer in batch)
        data = "".join(lines).encode()
        size = os.fstat(self._file).st_size
        with explain_write(self.path):
            try:
                while data:
                    data = data[os.write(self._file, data) :]
                os.fsync(self._file)
            except OSError:  # an interrupt needs no care: a cut line is dropped on opening, a whole one is an answer
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, size)
                raise
        self.answers.update((answer.index, answer) for answer in batch)

    def take_in(self) -> None:
        """Move what is stored in parts into this file, waiting for processes that still write to them."""
        for path in parts(self.path):
            with Predictions(path, self._waiting) as part, explain_write(path):
                self.append(answer for index, answer in part.answers.items() if index not in self.answers)
                path.unlink()
                Path(part._lock.lock_file).unlink(missing_ok=True)

    def know(self, whole: Path) -> None:
        """Count as stored what lies in the file of which this one is a part. Raises UserError if that is damaged."""
        data = whole.read_bytes() if whole.exists() else b""
        self.answers.update((answer.index, answer) for answer in read_answers(data, whole))

    def _read(self) -> list[Prediction]:
        """Stored answers; a last line without its end is cut off."""
        answers = read_answers(whole_lines(self.path), self.path)
        cut_short_line(self.path)
        return answers


def read_answers(data: bytes, path: Path) -> list[Prediction]:
    """Parse JSON lines. Raises UserError naming the line that is damaged."""
    answers = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            answers.append(Prediction.model_validate(json.loads(line)))
        except (ValueError, ValidationError) as error:
            raise UserError(
                f"{path} line {number} is not a stored answer ({str(error).splitlines()[0]}); delete that line and run "
                "the same command again: only its row is asked again"
            ) from error
    return answers


def part(path: Path, rank: int) -> Path:
    """Where process `rank`, from 1 on, stores its answers to the benchmark of `path`."""
    return path.with_suffix(f".part{rank}.jsonl")


def parts(path: Path) -> list[Path]:
    """The parts that lie beside a file."""
    return sorted(path.parent.glob(f"{glob.escape(path.stem)}.part*.jsonl"))


def stored_rows(path: Path) -> int:
    """Rows stored in a file and its parts, whoever writes to them at the moment."""
    return sum(file.read_bytes().count(b"\n") for file in (path, *parts(path)) if file.exists())
