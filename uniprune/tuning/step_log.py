"""Step log of a training: append-only JSON lines, one per optimizer step or measurement of the probe samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uniprune.results.measurements import Strict
from uniprune.utils.files import JsonLines


class BatchLine(Strict):
    """One pruned batch, as it is stored."""

    index: list[int]
    """Row numbers of its samples."""
    kept: list[int]
    """Places of the kept samples within the batch."""
    removed: dict[int, list[int]]
    """Place -> removed answer tokens, by place within the answer."""
    quadrant: list[int] | None = None
    """Quadrant of each sample; null where the plane was not measured."""
    perplexity: list[float | None] | None = None
    """Of each sample; null where it is not finite (above exp(700)), which counts as the largest of the batch."""
    entropy: list[float | None] | None = None
    """Of each sample, in nats; null as above."""
    short: bool = False
    """True if the ratio left less than one sample, so that one was kept nevertheless."""


class StepLine(Strict):
    """One optimizer step."""

    step: int
    """From 0."""
    loss: float | None
    """Mean over the trained tokens; null in a void step, whose loss was not finite."""
    tokens: int
    """Tokens of all samples of the step."""
    answers: int
    """Their answer tokens."""
    run: int
    """Tokens that went through forward and backward."""
    trained: int
    """Tokens with a loss."""
    seconds: dict[str, float]
    """score: scoring the batch; samples: choosing samples; tokens: measuring and choosing tokens; train: forward and
    backward; step: all of it with the optimizer."""
    batches: list[BatchLine]
    """The batches of the step."""

    @property
    def done(self) -> int:
        """Optimizer steps completed when the line was written."""
        return self.step + 1


class ProbeLine(Strict):
    """One measurement of the probe samples."""

    step: int
    """Optimizer steps completed before it."""
    perplexity: list[float | None]
    """Of each probe sample; null where it is not finite."""
    entropy: list[float | None]
    """Of each probe sample, in nats; null where it is not finite."""

    @property
    def done(self) -> int:
        """Optimizer steps completed when the line was written."""
        return self.step


class StepLog:
    """The lines of one training. Opening it only reads; `rewind` and `append` write.

    Args:
        path: the JSON lines file.

    Raises:
        UserError: the file cannot be read, or a line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._file = JsonLines(path, _parsed, "a step of this version", "move its folder away and run again")
        self._lines = self._file.read()

    @property
    def steps(self) -> list[StepLine]:
        """Optimizer steps, in order."""
        return [line for line in self._lines if isinstance(line, StepLine)]

    @property
    def probes(self) -> list[ProbeLine]:
        """Measurements of the probe samples, in order."""
        return [line for line in self._lines if isinstance(line, ProbeLine)]

    def rewind(self, step: int) -> None:
        """Drop what was stored after the first `step` optimizer steps, because a training resumes from there.

        Raises:
            UserError: the file cannot be written; the old lines are kept.
        """
        kept = [line for line in self._lines if line.done <= step]
        if len(kept) < len(self._lines):
            self._file.rewrite(map(_dumped, kept))
            self._lines = kept

    def append(self, line: StepLine | ProbeLine) -> None:
        """Store a line: it is on disk when this returns. Raises UserError when it cannot be written."""
        self._file.append([_dumped(line)])
        self._lines.append(line)


def _parsed(fields: dict[str, Any]) -> StepLine | ProbeLine:
    return (StepLine if "batches" in fields else ProbeLine).model_validate(fields)


def _dumped(line: StepLine | ProbeLine) -> dict[str, Any]:
    """Plain values; the null loss of a void step is kept."""
    return line.model_dump(exclude_none=True) | ({"loss": line.loss} if isinstance(line, StepLine) else {})
