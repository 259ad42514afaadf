"""What a training did, step by step: append-only JSON lines that a resumed run continues from its checkpoint on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uniprune.results.measurements import Strict
from uniprune.utils.files import JsonLines


class BatchLine(Strict):
    """One pruned batch."""

    index: list[int]
    """Row numbers of its samples."""
    kept: list[int]
    """Places of the kept ones."""
    removed: dict[int, list[int]]
    """Place -> answer tokens removed, by place within the answer."""
    quadrant: list[int] | None = None
    """Quadrants; null where the plane was not measured."""
    perplexity: list[float] | None = None
    """Per sample."""
    entropy: list[float] | None = None
    """Per sample, nats."""
    short: bool = False
    """Whether the ratio asked for less than one sample, so that one was kept nevertheless."""


class StepLine(Strict):
    """One optimizer step."""

    step: int
    """From 0."""
    loss: float | None
    """Mean over the trained tokens; null when it was not finite and the step was void."""
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


class ProbeLine(Strict):
    """The fixed probe samples after some steps."""

    step: int
    """Optimizer steps done."""
    perplexity: list[float]
    """Per probe sample."""
    entropy: list[float]
    """Per probe sample, nats."""


class StepLog:
    """The steps and probes of one run: a JSON lines file that a resumed training continues.

    Opening it reads only. `rewind` drops the lines of a training that was cut off after its last checkpoint.

    Args:
        path: the JSON lines file.

    Raises:
        UserError: it cannot be read, or a line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.steps: list[StepLine] = []
        self.probes: list[ProbeLine] = []
        self._lines = JsonLines(path, _parsed, "a step of this version", "move its folder away and run again")
        for line in self._lines.read():
            self._add(line)

    def rewind(self, step: int) -> None:
        """Drop the lines after the first `step` steps, in memory and in the file, at once.

        Raises:
            UserError: the file cannot be written; it then holds what it held before.
        """
        steps = [line for line in self.steps if line.step < step]
        probes = [line for line in self.probes if line.step <= step]
        if (len(steps), len(probes)) != (len(self.steps), len(self.probes)):
            self._lines.rewrite(_dumped(line) for line in [*steps, *probes])
            self.steps, self.probes = steps, probes

    def append(self, line: StepLine | ProbeLine) -> None:
        """Add a line: it is on disk when this returns. Raises UserError when it cannot be written."""
        self._lines.append([_dumped(line)])
        self._add(line)

    def _add(self, line: StepLine | ProbeLine) -> None:
        if isinstance(line, StepLine):
            self.steps.append(line)
        else:
            self.probes.append(line)


def _parsed(fields: dict[str, Any]) -> StepLine | ProbeLine:
    return (StepLine if "batches" in fields else ProbeLine).model_validate(fields)


def _dumped(line: StepLine | ProbeLine) -> dict[str, Any]:
    """Plain values; a loss that is null is kept, since it means a void step."""
    return line.model_dump(exclude_none=True) | ({"loss": line.loss} if isinstance(line, StepLine) else {})
