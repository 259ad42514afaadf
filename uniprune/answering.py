"""Answer batches of requests with a pruned model, measured, and survive what single rows or too large batches do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import torch

from uniprune.benchmark import Request
from uniprune.budget import tokens_per_layer
from uniprune.chat import Chat
from uniprune.engine import RowReport, Sample, prune
from uniprune.errors import UserError
from uniprune.loading import LoadedModel
from uniprune.predictions import Answer
from uniprune.pruner import Pruner
from uniprune.summary import SPANS
from uniprune.timing import Timer


class Answerer:
    """A loaded model under one pruner, ready to answer (a context manager: hooks live inside the block only).

    Args:
        loaded: the model. pruner: the method. batch_size: rows answered together; halved for good when memory runs out.
        average: requested layer average as a share of all visual tokens, None for the protocol "site".
    """

    def __init__(self, loaded: LoadedModel, pruner: Pruner, batch_size: int, average: float | None = None) -> None:
        self.batch_size = batch_size
        self._loaded, self._pruner, self._average = loaded, pruner, average
        self._chat = Chat(loaded)
        self._stages = pruner.schedule(loaded.num_layers)
        self._warm = False

    def __enter__(self) -> Self:
        """Attach timer and engine."""
        with ExitStack() as stack:
            self._timer = stack.enter_context(Timer(self._loaded.family))
            self._session = stack.enter_context(prune(self._loaded.model, self._pruner, timer=self._timer))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the model as it was."""
        self._stack.close()

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer some rows, in order. The first batch ever is answered twice, and only the second time is measured.

        Raises:
            UserError: one row alone does not fit into memory.
        """
        answers: list[Answer] = []
        decoded: list[Request] = []
        for request in requests:
            try:
                decoded.append(with_pictures(request))
            except Exception as error:  # Pillow's decoders raise whatever they stumble over
                reason = f"{type(error).__name__}: {error}"
                answers.append(Answer(index=request.index, prediction="", error=reason))
        # Processors take batches in which all rows have images or none has.
        for group in (True, False):
            rows = [request for request in decoded if has_picture(request) is group]
            while rows:
                batch, rows = rows[: self.batch_size], rows[self.batch_size :]
                try:
                    answers += self._batch(batch)
                except RuntimeError as error:
                    self._shrink(batch, error)
                    rows = batch + rows
        order = {request.index: place for place, request in enumerate(requests)}
        return sorted(answers, key=lambda answer: order[answer.index])

    def _batch(self, requests: list[Request]) -> list[Answer]:
        """One call of `generate`."""
        batch = self._chat.encode(requests)
        for _ in range(1 if self._warm else 2):
            self._session.reports.clear()
            self._session.samples = tuple(
                Sample(request.index, question) for request, question in zip(requests, batch.questions, strict=True)
            )
            replies = self._chat.generate(batch)
            spans = dataclasses.asdict(self._timer.sample())
            self._warm = True
        reports = self._session.reports[-1].rows
        share = {name: spans[name] / len(requests) for name in SPANS}
        return [
            Answer(
                index=request.index,
                prediction=reply.text,
                spans=share,
                new_tokens=reply.tokens,
                batch=len(requests),
                visual_tokens=list(report.entering),
                requested=self._requested(report),
            )
            for request, reply, report in zip(requests, replies, reports, strict=True)
        ]

    def _requested(self, report: RowReport) -> float:
        """What the budget asks the mean of `report.entering` to be."""
        if self._average is not None and self._stages:
            return self._average * report.initial
        images = [sum(t * h * w for t, h, w in grids) for grids in report.grids]
        units = images if self._pruner.scope == "image" else [sum(images)]
        layers = self._loaded.num_layers
        return sum(sum(tokens_per_layer(unit, self._stages, layers)) for unit in units) / layers

    def _shrink(self, batch: list[Request], error: RuntimeError) -> None:
        """Halve the batch size if memory ran out; anything else is not ours."""
        if not is_out_of_memory(error):
            raise error
        if len(batch) == 1:
            raise UserError(
                f"row {batch[0].index} alone does not fit into memory ({str(error).splitlines()[0]}); use --dtype "
                "float16 or bfloat16, a smaller --ratio, or a device with more memory"
            ) from error
        self.batch_size = len(batch) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that GPU or CPU memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def has_picture(request: Request) -> bool:
    """Whether the row carries any image."""
    return any(part.image is not None for part in request.parts)


def with_pictures(request: Request) -> Request:
    """The request with its parts built and its images decoded: both are lazy until now. Raises what decoding raises."""
    parts = tuple(request.parts)
    for part in parts:
        if part.image is not None:
            part.image.load()
    return dataclasses.replace(request, parts=parts)
