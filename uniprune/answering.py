"""Answer batches of requests with a pruned model, measured, and survive what single rows or too large batches do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from types import TracebackType
from typing import Any, Self

import torch

from uniprune.benchmark import Request
from uniprune.budget import tokens_per_layer
from uniprune.chat import Chat
from uniprune.encoding import Encoded, Encoder, windows
from uniprune.engine import RowReport, Sample, prune
from uniprune.engine.vision import VisionCall
from uniprune.errors import UserError
from uniprune.flops import CostModel
from uniprune.loading import LoadedModel
from uniprune.predictions import Answer
from uniprune.pruner import Pruner
from uniprune.sharing import Shared
from uniprune.summary import SPANS
from uniprune.timing import Spans, Timer

WINDOW = 4
"""Batches' worth of rows that are looked at together when batches are formed by length."""


class Answerer:
    """A loaded model under one pruner, ready to answer (a context manager: hooks live inside the block only).

    Args:
        loaded: the model. pruner: the method. batch_size: rows answered together; halved for good when memory runs out.
        average: requested layer average as a share of all visual tokens, None for the protocol "site".
        workers: processes that decode pictures and process prompts ahead; 0 does it in between.
        shared: features to share with other methods. Answers then carry no times: they would not be this method's.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        pruner: Pruner,
        batch_size: int,
        average: float | None = None,
        workers: int = 0,
        shared: Shared | None = None,
    ) -> None:
        self.batch_size = batch_size
        self._loaded, self._pruner, self._average = loaded, pruner, average
        self._chat, self._encoder = Chat(loaded), Encoder(loaded.processor, apart=shared is not None)
        self._workers, self._shared = workers, shared
        self._stages = pruner.schedule(loaded.num_layers)
        self._costs = CostModel(loaded.family)
        self._warm = shared is not None  # nothing is measured then

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

    def answers(self, requests: Sequence[Request], data: str = "") -> Iterator[list[Answer]]:
        """Answers to some rows of the benchmark with fingerprint `data`, batch by batch.

        Rows are taken a few batches at a time and those of similar length are asked together. The first batch ever is
        answered twice, and only the second time is measured.

        Raises:
            UserError: one row alone does not fit into memory.
        """
        for rows in self._encoded(requests, data):
            if faulty := [row for row in rows if row.error is not None]:
                yield [Answer(index=row.index, prediction="", error=row.error) for row in faulty]
            waiting = sorted((row for row in rows if row.error is None), key=lambda row: row.tokens)
            while waiting:
                batch, waiting = waiting[: self.batch_size], waiting[self.batch_size :]
                try:
                    answers = self._batch(batch, data)
                except RuntimeError as error:
                    self._shrink(batch, error)
                    waiting = batch + waiting
                    continue
                yield answers

    def _encoded(self, requests: Sequence[Request], data: str) -> Iterator[list[Encoded]]:
        """The rows in portions of a few batches; those that another method has encoded come first."""
        portion = WINDOW * self.batch_size if self.batch_size > 1 else 1
        if self._shared is not None:
            blocks = self._session.looks_at
            known = {request.index: self._shared.prompt(data, request, blocks) for request in requests}
            rows = [row for row in known.values() if row is not None]
            for start in range(0, len(rows), portion):
                yield rows[start : start + portion]
            requests = [request for request in requests if known[request.index] is None]
        yield from windows(self._encoder, requests, portion, self._workers)

    def _batch(self, rows: list[Encoded], data: str) -> list[Answer]:
        """One call of `generate`."""
        calls = self._calls(rows)
        pictures = [calls[one.key] for row in rows for one in row.pictures]
        for _ in range(1 if self._warm else 2):
            self._session.reports.clear()
            self._session.samples = tuple(Sample(row.index, torch.from_numpy(row.question)) for row in rows)
            replies = self._chat.generate(rows, self._session.present(pictures) if pictures else None)
            spans = self._timer.sample()
            self._warm = True
        if self._shared is not None:
            self._shared.keep(data, rows, calls)
        reports = self._session.reports[-1].rows
        times = {} if self._shared is not None else measured(spans, len(rows))
        return [
            Answer(
                index=row.index,
                prediction=reply.text,
                **times,
                new_tokens=reply.tokens,
                first=reply.first,
                batch=len(rows),
                visual_tokens=list(report.entering),
                requested=self._requested(report),
                initial=report.initial,
                text_tokens=report.text,
                flops=self._costs.prompt(report.encoded, report.lengths),
                kv_bytes=report.kv_bytes,
            )
            for row, reply, report in zip(rows, replies, reports, strict=True)
        ]

    @torch.inference_mode()
    def _calls(self, rows: Sequence[Encoded]) -> dict[str, VisionCall]:
        """Key -> the tower's work on a picture that is encoded apart: kept by an earlier method or row, or done now."""
        calls: dict[str, VisionCall] = {}
        if self._shared is None:
            return calls
        for one in chain.from_iterable(row.pictures for row in rows):
            if one.key not in calls:
                known = self._shared.features(one.key, self._session.looks_at)
                calls[one.key] = known or self._session.encode(self._chat.tensors(one.visual))
        return calls

    def _requested(self, report: RowReport) -> float | None:
        """What the budget asks the mean of `report.entering` to be; None where the method chooses its own number."""
        if not all(stage.pruner.exact for stage in self._stages):
            return None
        if self._average is not None and self._stages:
            return self._average * report.initial
        layers, sizes = self._loaded.num_layers, [len(unit.ranks) for unit in report.units]
        return sum(sum(tokens_per_layer(size, self._stages, layers)) for size in sizes) / layers

    def _shrink(self, batch: list[Encoded], error: RuntimeError) -> None:
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


def measured(spans: Spans, rows: int) -> dict[str, Any]:
    """What an answer says of the time and memory of its batch of `rows`: a share of each span, all of each wait."""
    share = {name: getattr(spans, name) / rows for name in SPANS}
    return {"spans": share, "ttft": spans.ttft, "tpot": spans.tpot, "peak_bytes": spans.peak_bytes}


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that GPU or CPU memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
