"""The processes of one `accelerate launch`, which share the rows of every benchmark.

Every process does the same runs in the same order, so that they only have to agree after each step: whether it went
well everywhere. Answers never travel between processes; each appends to a file of its own
(uniprune/results/predictions.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch

from uniprune.errors import Failure, UserError

T = TypeVar("T")
LONGEST_STEP = timedelta(days=30)
"""How long processes wait for the slowest of them; one that dies is noticed at once."""


class LostProcessError(RuntimeError):
    """Another process of the launch has ended in the middle of the work."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that work together.

    Attributes:
        rank: number of this process, from 0; process 0 alone scores, prints and writes records. size: how many.
        local: number of this process on its machine, from 0.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @classmethod
    @contextmanager
    def join(cls) -> Iterator[ProcessGroup]:
        """The processes started together, as accelerate tells them; a team of one without `accelerate launch`."""
        from accelerate import PartialState

        # Gloo, on GPUs too: all that is exchanged is a few words after each step.
        state = PartialState(cpu=True, timeout=LONGEST_STEP)
        try:
            yield cls(state.process_index, state.num_processes, state.local_process_index)
        finally:
            state.destroy_process_group()
            state._reset_state()

    @property
    def main(self) -> bool:
        """Whether this process scores, prints and writes records."""
        return self.rank == 0

    def device(self, wish: str) -> str:
        """What `--device` means here: of several processes on a machine with GPUs, each takes one."""
        if self.size > 1 and wish in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{self.local % torch.cuda.device_count()}"
        return wish

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """This process's part of what all processes have in hand."""
        return rows[self.rank :: self.size]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank. Raises LostProcessError when one has ended."""
        if self.size == 1:
            return [value]
        from accelerate.utils import gather_object

        try:
            gathered: list[T] = gather_object([value])
        except RuntimeError as error:
            raise LostProcessError(
                "another process of this launch has ended; every finished batch is stored: run the same command again "
                "to resume"
            ) from error
        return gathered

    @contextmanager
    def step(self) -> Iterator[None]:
        """A block that all processes do and leave together: all go on, or all raise.

        Raises:
            Exception: what the block raised here, or else in the first process where it failed.
            LostProcessError: a process has ended.
        """
        own: Exception | None = None
        try:
            yield
        except LostProcessError:
            raise
        except Exception as error:
            own = error
        failures = self.gather(None if own is None else Failure.of(own))
        if own is not None:
            raise own
        for rank, failure in enumerate(failures):
            if failure is not None:
                kind = UserError if failure.user else RuntimeError
                raise kind(f"process {rank}: {failure.message}")


ALONE = ProcessGroup()
"""A process that nobody shares its work with."""
