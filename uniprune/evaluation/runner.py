"""Predictions of a pruned model: batches formed by length, measured, halved when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from types import TracebackType
from typing import Any, Self

import torch

from uniprune.engine import PromptInfo, RowReport, prune
from uniprune.engine.timer import Spans, Timer
from uniprune.engine.vision import VisionCapture
from uniprune.engine.windows import smallest_window
from uniprune.errors import UnsupportedError, UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.feature_cache import FeatureCache
from uniprune.evaluation.frame_sampling import USUAL, FrameSampling
from uniprune.evaluation.generation import GeneratedText, Generator
from uniprune.evaluation.image_decoding import ImageDecoding
from uniprune.evaluation.processing import EncodedRequest, RequestEncoder
from uniprune.evaluation.prompts import Question
from uniprune.evaluation.resizing import Resizing
from uniprune.evaluation.selections import areas_of, selections
from uniprune.evaluation.shared_prefixes import FEWEST_ROWS, common, groups_alike
from uniprune.evaluation.workers import windows
from uniprune.modeling.context import context_length
from uniprune.modeling.flops import CostModel
from uniprune.modeling.loading import LoadedModel
from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import declared
from uniprune.pruning.placement import placed
from uniprune.results.predictions import Prediction
from uniprune.results.remarks import ABOVE, BELOW, CONTEXT, CUT, WINDOWED
from uniprune.results.spans import SPANS
from uniprune.utils.memory import is_out_of_memory

WINDOW = 4
"""Batches per window; the rows of a window are sorted by length."""


class Runner:
    """A loaded model under one pruner (a context manager: hooks exist inside the block only).

    Args:
        loaded: the model.
        pruner: the method.
        batch_size: rows per batch; halved for good when memory runs out, which changes rounding (see `Generator`).
        average: requested layer average as a share of all visual tokens, None for the protocol "site".
        workers: processes that decode images and process prompts ahead; 0 does it in this process.
        shared: features shared with other methods. Predictions then carry no times: these would not be the method's.
        decoding: conversion of images to RGB.
        question: as in `RunOptions`.
        sampling: choice of the frames of videos.
        share_prefix: as in `RunOptions`. Predictions carry no times then, either.
        keep_selections: as in `RunOptions`.
        timed: False answers without measuring times: the first batch is then generated once.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        pruner: Pruner,
        batch_size: int,
        average: float | None = None,
        workers: int = 0,
        shared: FeatureCache | None = None,
        decoding: ImageDecoding = "kit",
        question: Question = "seen",
        sampling: FrameSampling = USUAL,
        share_prefix: bool = False,
        keep_selections: bool = False,
        timed: bool = True,
    ) -> None:
        self.batch_size = batch_size
        self._loaded, self._average = loaded, average
        self._input, self._pruner = pruner.input_stage, pruner.after_input()
        self._generator = Generator(loaded)
        self._workers, self._shared, self._decoding = workers, shared, decoding
        self._question, self._sampling, self._share_prefix = question, sampling, share_prefix
        self._areas = areas_of(loaded.adapter) if keep_selections else None
        self._stages = placed(self._pruner.schedule(loaded.num_layers), loaded.adapter.attends)
        self._costs = CostModel(loaded.adapter)
        self._window = smallest_window(loaded.adapter.decoder.config, self._stages)
        self._context = context_length(loaded.adapter.decoder.config)
        self._timed = timed and shared is None and not share_prefix
        self._warm = not self._timed

    def __enter__(self) -> Self:
        """Attach timer and engine."""
        with ExitStack() as stack:
            if self._input is not None:
                stack.enter_context(self._loaded.adapter.any_size())
            self._timer = stack.enter_context(Timer(self._loaded.adapter))
            self._session = stack.enter_context(prune(self._loaded.model, self._pruner, timer=self._timer))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Detach timer and engine."""
        self._stack.close()

    def predictions(
        self, requests: Sequence[Request], data: str = "", benchmark: str = ""
    ) -> Iterator[list[Prediction]]:
        """Yield predictions of rows of a benchmark, whose fingerprint is `data`, batch by batch.

        Rows of similar length among a few batches form a batch; those with videos have batches of their own, in some
        families those with as many frames. The first batch is generated twice and measured the second time.

        Raises:
            UserError: one row alone does not fit into memory.
        """
        # Rows of one file may be processed in another way for another benchmark or method, or in another order.
        data = f"{benchmark} {self._question} {self._input} {data}"
        for rows in self._encoded(requests, data, self._encoder(benchmark)):
            if faulty := [row for row in rows if row.error is not None]:
                yield [Prediction(index=row.index, prediction="", error=row.error) for row in faulty]
            waiting = sorted((row for row in rows if row.error is None), key=lambda row: (row.shape, row.tokens))
            visual_ids = self._loaded.adapter.visual_token_ids
            for group in groups_alike(waiting, visual_ids) if self._share_prefix else ():
                if predictions := self._continued(group):
                    yield predictions
                    answered = {one.index for one in predictions}
                    waiting = [row for row in waiting if row.index not in answered]
            while waiting:
                alike = [row for row in waiting if row.shape == waiting[0].shape]
                batch = alike[: self.batch_size]
                waiting = waiting[len(batch) :]
                try:
                    predictions = self._batch(batch, data)
                except RuntimeError as error:
                    self._shrink(batch, error)
                    waiting = batch + waiting
                    continue
                yield predictions

    def _encoder(self, benchmark: str) -> RequestEncoder:
        """Return the encoder of the rows of a benchmark."""
        settings = self._loaded.entry.image_settings(benchmark)
        stage, forms = self._input, self._loaded.adapter.input_forms
        return RequestEncoder(
            self._loaded.processor_for(benchmark),
            self._shared is not None,
            self._decoding,
            settings,
            self._question,
            self._sampling,
            self._loaded.adapter.mixes,
            None if stage is None else Resizing(stage, forms, settings.one_by_one),
            self._areas,
        )

    def _encoded(
        self, requests: Sequence[Request], data: str, encoder: RequestEncoder
    ) -> Iterator[list[EncodedRequest]]:
        """Yield encoded rows in windows of a few batches; those in the cache come first."""
        window = WINDOW * self.batch_size if self.batch_size > 1 else 1
        if self._share_prefix:
            window = max(window, FEWEST_ROWS)
        if self._shared is not None:
            blocks = self._session.vision_blocks
            known = {request.index: self._shared.prompt(data, request, blocks) for request in requests}
            rows = [row for row in known.values() if row is not None]
            for start in range(0, len(rows), window):
                yield rows[start : start + window]
            requests = [request for request in requests if known[request.index] is None]
        yield from windows(encoder, requests, window, self._workers)

    def _batch(self, rows: list[EncodedRequest], data: str) -> list[Prediction]:
        """Generate and measure one batch."""
        calls = self._calls(rows)
        images = [calls[image.key] for row in rows for image in row.images]
        for _ in range(1 if self._warm else 2):
            self._session.reports.clear()
            self._session.samples = tuple(row.info for row in rows)
            texts = self._generator.generate(rows, self._session.present(images) if images else None)
            spans = self._timer.sample()
            self._warm = True
        if self._shared is not None:
            self._shared.keep(data, rows, calls)
        reports = self._session.reports[-1].rows
        batching = f"{self.batch_size}" + " with --share-vision" * (self._shared is not None)
        how: dict[str, Any] = {"batch": len(rows), "batching": batching}
        how |= measured(spans, len(rows)) if self._timed else {}
        return self._predictions(rows, texts, reports, how)

    def _continued(self, rows: Sequence[EncodedRequest]) -> list[Prediction]:
        """Prefill once what rows begin with, and generate for one after the other; none if it cannot be continued."""
        self._session.reports.clear()
        self._session.samples = (PromptInfo(rows[0].index),)
        length = common(rows)
        try:
            prefix = self._generator.prefix(self._session, rows[0], length)
            texts = [self._generator.continued(row, prefix) for row in rows]
        except UnsupportedError:  # they are answered as without sharing
            return []
        except RuntimeError as error:
            self._shrink([rows[0]], error)
            raise
        reports = [prefix.row(row.tokens - length) for row in rows]
        how: dict[str, Any] = {"batch": 1, "batching": "1 with --share-prefix"}
        return self._predictions(rows, texts, reports, how, together=False)

    def _predictions(
        self,
        rows: Sequence[EncodedRequest],
        texts: Sequence[GeneratedText],
        reports: Sequence[RowReport],
        how: dict[str, Any],
        together: bool = True,
    ) -> list[Prediction]:
        """Return what is stored of rows, whose images the tower got `together` or once for all of them."""
        kept: list[dict[str, Any]] = [{} for _ in rows]
        if self._areas is not None:
            shown = [row.shown for row in rows]
            alone = zip(reports, shown, strict=True)
            calls = [(reports, shown)] if together else [([one], [row]) for one, row in alone]
            kept = [{"selections": found} for call in calls for found in selections(*call)]
        each = zip(rows, texts, reports, kept, strict=True)
        return [self._prediction(row, text, report, **how, **more) for row, text, report, more in each]

    def _prediction(self, row: EncodedRequest, text: GeneratedText, report: RowReport, **how: Any) -> Prediction:
        """Return what is stored of a row; `how` are the fields on its batch and its times."""
        return Prediction(
            index=row.index,
            prediction=text.text,
            **how,
            new_tokens=text.tokens,
            first=text.first,
            remarks=[*row.remarks, *self._remarks(text, report), *_budget_remarks(row, report)],
            visual_tokens=list(report.entering),
            requested=self._requested(report),
            initial=row.resized[0] if row.resized else report.initial,
            frames=row.frames,
            text_tokens=report.text,
            positions=report.positions + text.tokens - 1,
            flops=self._costs.prompt(*report.prefill),
            kv_bytes=report.kv_bytes,
        )

    @torch.inference_mode()
    def _calls(self, rows: Sequence[EncodedRequest]) -> dict[str, VisionCapture]:
        """Return the vision tower's calls by image key: cached by an earlier method or row, or made now."""
        calls: dict[str, VisionCapture] = {}
        if self._shared is None:
            return calls
        for image in chain.from_iterable(row.images for row in rows):
            if image.key not in calls:
                cached = self._shared.features(image.key, self._session.vision_blocks)
                calls[image.key] = cached or self._session.encode(self._generator.tensors(image.visual))
        return calls

    def _remarks(self, text: GeneratedText, report: RowReport) -> list[str]:
        """Return what the model made of a row.

        Pruned prompts are as long as the un-pruned one: their tokens keep its positions, and where a method renumbers
        them the un-pruned model, with which it is compared, had all. The last generated token has no position.
        """
        beyond = self._context is not None and report.positions + text.tokens - 1 > self._context
        blind = self._window is not None and report.positions > self._window
        return [CONTEXT] * beyond + [CUT] * text.cut + [WINDOWED] * blind

    def _requested(self, report: RowReport) -> float | None:
        """Return the mean of `report.entering` that the budget requests; None if the method chooses its own number."""
        if self._input is not None or not all(stage.pruner.exact for stage in self._stages):
            return None
        if self._average is not None and self._stages:
            return self._average * report.initial
        layers = self._loaded.num_layers
        return sum(sum(declared(grids, self._stages, layers)) for grids in report.grids) / layers

    def _shrink(self, batch: list[EncodedRequest], error: RuntimeError) -> None:
        """Halve the batch size if memory ran out; re-raise any other error."""
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


def _budget_remarks(row: EncodedRequest, report: RowReport) -> list[str]:
    """Return how far the images of a row, as an input stage left them, are from its budget."""
    budget = row.resized[1] if row.resized else report.initial
    return [BELOW] * (report.initial < budget) + [ABOVE] * (report.initial > budget)


def measured(spans: Spans, rows: int) -> dict[str, Any]:
    """Return a row's times and memory in a batch of `rows`: a share of every span, but TTFT and TPOT of the batch."""
    share = {name: getattr(spans, name) / rows for name in SPANS}
    return {"spans": share, "ttft": spans.ttft, "tpot": spans.tpot, "peak_bytes": spans.peak_bytes}
