"""Process group of one `accelerate launch`: its processes share the rows of every benchmark.

Every process executes the same runs in the same order; all they exchange is, after each step, whether it succeeded.
Predictions are never sent between processes; each appends to a file of its own (uniprune/results/predictions.py).
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
"""Longest time processes wait for the slowest; the death of one is noticed at once."""


class LostProcessError(RuntimeError):
    """Another process of the launch ended before its work was done."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that share the rows.

    Attributes:
        rank: number of this process, from 0; process 0 alone scores, prints and writes records.
        size: number of processes.
        local: number of this process on its machine, from 0.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @classmethod
    @contextmanager
    def join(cls) -> Iterator[ProcessGroup]:
        """Join the processes started together; without `accelerate launch` a group of one."""
        from accelerate import PartialState

        # Gloo, on GPUs too: processes exchange one short message after each step.
        state = PartialState(cpu=True, timeout=LONGEST_STEP)
        try:
            yield cls(state.process_index, state.num_processes, state.local_process_index)
        finally:
            state.destroy_process_group()
            state._reset_state()

    @property
    def main(self) -> bool:
        """Return whether this process scores, prints and writes records."""
        return self.rank == 0

    def device(self, requested: str) -> str:
        """Resolve `--device` for this process: of several processes on a machine with GPUs, each takes one."""
        if self.size > 1 and requested in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{self.local % torch.cuda.device_count()}"
        return requested

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """Return this process's part of the rows."""
        return rows[self.rank :: self.size]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank.

        Raises:
            LostProcessError: another process has ended.
        """
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
        """Run a block in all processes and leave it together: all continue, or all raise.

        Raises:
            Exception: the exception of the block here, or else of the first process where it failed.
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
"""The group of a single process."""
