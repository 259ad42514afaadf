"""Answer batches of requests with a pruned model, measured, and survive what single rows or too large batches do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from uniprune.engine import PromptInfo, RowReport, prune
from uniprune.engine.timer import Spans, Timer
from uniprune.engine.vision import VisionCapture
from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.feature_cache import FeatureCache
from uniprune.evaluation.processing import EncodedRequest, RequestEncoder, collate, windows
from uniprune.modeling.flops import CostModel
from uniprune.modeling.greedy import greedy
from uniprune.modeling.loading import LoadedModel
from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import tokens_per_layer
from uniprune.results.aggregate import SPANS
from uniprune.results.fidelity import first_tokens
from uniprune.results.predictions import FirstToken, Prediction

WINDOW = 4
"""Batches' worth of rows that are looked at together when batches are formed by length."""


class Runner:
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
        shared: FeatureCache | None = None,
    ) -> None:
        self.batch_size = batch_size
        self._loaded, self._pruner, self._average = loaded, pruner, average
        self._chat, self._encoder = Generator(loaded), RequestEncoder(loaded.processor, apart=shared is not None)
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

    def answers(self, requests: Sequence[Request], data: str = "") -> Iterator[list[Prediction]]:
        """Answers to some rows of the benchmark with fingerprint `data`, batch by batch.

        Rows are taken a few batches at a time and those of similar length are asked together. The first batch ever is
        answered twice, and only the second time is measured.

        Raises:
            UserError: one row alone does not fit into memory.
        """
        for rows in self._encoded(requests, data):
            if faulty := [row for row in rows if row.error is not None]:
                yield [Prediction(index=row.index, prediction="", error=row.error) for row in faulty]
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

    def _encoded(self, requests: Sequence[Request], data: str) -> Iterator[list[EncodedRequest]]:
        """The rows in portions of a few batches; those that another method has encoded come first."""
        portion = WINDOW * self.batch_size if self.batch_size > 1 else 1
        if self._shared is not None:
            blocks = self._session.vision_blocks
            known = {request.index: self._shared.prompt(data, request, blocks) for request in requests}
            rows = [row for row in known.values() if row is not None]
            for start in range(0, len(rows), portion):
                yield rows[start : start + portion]
            requests = [request for request in requests if known[request.index] is None]
        yield from windows(self._encoder, requests, portion, self._workers)

    def _batch(self, rows: list[EncodedRequest], data: str) -> list[Prediction]:
        """One call of `generate`."""
        calls = self._calls(rows)
        pictures = [calls[one.key] for row in rows for one in row.pictures]
        for _ in range(1 if self._warm else 2):
            self._session.reports.clear()
            self._session.samples = tuple(PromptInfo(row.index, torch.from_numpy(row.question)) for row in rows)
            replies = self._chat.generate(rows, self._session.present(pictures) if pictures else None)
            spans = self._timer.sample()
            self._warm = True
        if self._shared is not None:
            self._shared.keep(data, rows, calls)
        reports = self._session.reports[-1].rows
        times = {} if self._shared is not None else measured(spans, len(rows))
        return [
            Prediction(
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
    def _calls(self, rows: Sequence[EncodedRequest]) -> dict[str, VisionCapture]:
        """Key -> the tower's work on a picture that is encoded apart: kept by an earlier method or row, or done now."""
        calls: dict[str, VisionCapture] = {}
        if self._shared is None:
            return calls
        for one in chain.from_iterable(row.pictures for row in rows):
            if one.key not in calls:
                known = self._shared.features(one.key, self._session.vision_blocks)
                calls[one.key] = known or self._session.encode(self._chat.tensors(one.visual))
        return calls

    def _requested(self, report: RowReport) -> float | None:
        """What the budget asks the mean of `report.entering` to be; None where the method chooses its own number."""
        if not all(stage.pruner.exact for stage in self._stages):
            return None
        if self._average is not None and self._stages:
            return self._average * report.initial
        layers, sizes = self._loaded.num_layers, [len(unit.ranks) for unit in report.groups]
        return sum(sum(tokens_per_layer(size, self._stages, layers)) for size in sizes) / layers

    def _shrink(self, batch: list[EncodedRequest], error: RuntimeError) -> None:
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


@dataclass(frozen=True)
class GeneratedText:
    """One row's answer, its length in tokens (end of answer included), and the distribution its first token came of."""

    text: str
    tokens: int
    first: FirstToken


class FirstLogits(LogitsProcessor):
    """Keeps a reference to the first step's logits; `output_logits` of `generate` would keep all steps' (gigabytes)."""

    logits: Tensor

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[B, V] scores, unchanged."""
        if not hasattr(self, "logits"):
            self.logits = scores
        return scores


class Generator:
    """Speaks a loaded model's chat format. Greedy; a row's answer does not depend on the rows beside it.

    Args:
        loaded: the model with its processor.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.model: Any = loaded.model
        self.tokenizer = loaded.processor.tokenizer
        ends = self.model.generation_config.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends])
        pad = self.tokenizer.pad_token_id
        self._pad = min(self._ends) if pad is None else pad

    def tensors(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Inputs on the model's device, floating point ones in its precision."""
        return {name: self._placed(torch.from_numpy(value)) for name, value in arrays.items()}

    @torch.inference_mode()
    def generate(self, rows: Sequence[EncodedRequest], features: dict[str, Any] | None = None) -> list[GeneratedText]:
        """Answer every row greedily, each cut at its own longest length.

        `features` are those of the rows' pictures where these were encoded before.
        """
        inputs: dict[str, Any] = {name: self._placed(value) for name, value in collate(rows, self._pad).items()}
        if features is not None:
            inputs["mm_encoder_outputs"] = features
        start = FirstLogits()
        output = self.model.generate(
            **inputs,
            **greedy(max(row.length for row in rows)),
            pad_token_id=self._pad,
            logits_processor=LogitsProcessorList([start]),
        )
        answers = output[:, inputs["input_ids"].shape[1] :]
        firsts = first_tokens(start.logits)
        return [self._reply(ids[: row.length], first) for ids, row, first in zip(answers, rows, firsts, strict=True)]

    def _placed(self, value: Tensor) -> Tensor:
        return value.to(self.model.device, dtype=self.model.dtype if value.is_floating_point() else None)

    def _reply(self, ids: Tensor, first: FirstToken) -> GeneratedText:
        """Decode up to the end of the answer."""
        tokens = ids.tolist()
        end = next((i for i, token in enumerate(tokens, start=1) if token in self._ends), len(tokens))
        return GeneratedText(self.tokenizer.decode(tokens[:end], skip_special_tokens=True).strip(), end, first)
