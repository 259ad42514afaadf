"""What a training did, step by step: append-only JSON lines that a resumed run continues from its checkpoint on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from uniprune.errors import UserError
from uniprune.results.records import Strict
from uniprune.utils.files import explain_write


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
    """The file of one run.

    Args:
        path: the JSONL file. step: steps the checkpoint holds; later lines are of a training that was cut off.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.steps: list[StepLine] = []
        self.probes: list[ProbeLine] = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._take(line, step)
        with explain_write(path):
            path.write_text("".join(_dump(line) for line in [*self.steps, *self.probes]), encoding="utf-8")

    def append(self, line: StepLine | ProbeLine) -> None:
        """Add a line to the file. Raises UserError when it cannot be written."""
        (self.steps if isinstance(line, StepLine) else self.probes).append(line)  # type: ignore[arg-type]
        with explain_write(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_dump(line))

    def _take(self, line: str, step: int) -> None:
        try:
            told: dict[str, Any] = json.loads(line)
        except ValueError:  # cut off by a kill
            return
        try:
            if "batches" in told:
                if told["step"] < step:
                    self.steps.append(StepLine.model_validate(told))
            elif told["step"] <= step:
                self.probes.append(ProbeLine.model_validate(told))
        except ValidationError as error:
            raise UserError(f"{self.path} is not of this version; move its folder away and run again") from error


def _dump(line: Strict) -> str:
    return (
        json.dumps(line.model_dump(exclude_none=True) | ({"loss": line.loss} if isinstance(line, StepLine) else {}))
        + "\n"
    )
