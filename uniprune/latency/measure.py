"""Measure calls of `generate` on equal prompts, methods in turn, so that drift of the machine favours none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from uniprune.engine import PrefillReport, RowReport, Session, prune
from uniprune.engine.timer import Spans, Timer
from uniprune.errors import UserError
from uniprune.evaluation.code_hash import package_hash
from uniprune.evaluation.environment import environment
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.latency.busy import profile_busy
from uniprune.latency.floors import copy_bandwidth, weight_bytes
from uniprune.latency.graph_rounds import lack_graphs, with_graphs
from uniprune.latency.options import BenchOptions
from uniprune.latency.prompts import Prompts, random_prompts
from uniprune.latency.rows import BenchFile, BenchResult, BenchRow, BenchSetup, Reference
from uniprune.latency.timed_model import TimedModel, check_tokens
from uniprune.modeling.context import context_length
from uniprune.modeling.flops import CostModel
from uniprune.modeling.greedy import Greedy
from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import with_average
from uniprune.results.aggregate import mean_flops
from uniprune.results.spans import TIMES
from uniprune.utils.console import RunProgress
from uniprune.utils.memory import is_out_of_memory

OUT_OF_MEMORY = "out of memory"
"""Error of rows that are measured again: the machine may have more free memory next time."""


class TimedMethod(NamedTuple):
    """A method with its pruner, and the reason if its budget is impossible on the model."""

    spec: MethodSpec
    pruner: Pruner
    refusal: str | None


@dataclass
class BenchCase:
    """One method on one batch, while it is measured.

    Attributes:
        setup: what determines the measurement.
        pruner: the method.
        spans: times of the measured calls so far.
        report: of the last call.
        error: why it was given up.
        session: of all its calls, as an evaluation has one: what it reads of the model once is not read for every call.
    """

    setup: BenchSetup
    pruner: Pruner
    spans: list[Spans] = field(default_factory=list)
    report: PrefillReport | None = None
    error: str | None = None
    session: Session | None = None

    @property
    def label(self) -> str:
        """Name for the progress bar."""
        setup = self.setup
        return f"{setup.model} · {setup.method.name} {setup.ratio:g} · {setup.batch} x {setup.visual}"


class Bench:
    """All cases of one model.

    Args:
        model: the model.
        choices: methods, the un-pruned model first.
        options: sizes of the prompts and number of the calls.
        file: store of rows, with finished ones.
        progress: counts calls of `generate`.

    Raises:
        UserError: a method does not exist, no budget is possible, or the model cannot take that many visual tokens.
    """

    def __init__(
        self,
        model: TimedModel,
        choices: Sequence[MethodSpec],
        options: BenchOptions,
        file: BenchFile,
        progress: RunProgress,
    ) -> None:
        self._model, self._options, self._file, self._progress = model, options, file, progress
        self._costs = CostModel(model.adapter)
        self._environment, self._code = environment(model.placement.device), package_hash()
        self._tokens = options.tokens or (model.adapter.usual_tokens,)
        check_tokens(model.adapter, self._tokens)
        self._methods = [self._method(choice) for choice in choices]
        refusals = [method.refusal for method in self._methods if method.spec.name != "none"]
        if refusals and all(refusals):
            raise UserError(refusals[0])
        self._bandwidth: float | None = None

    def run(self) -> list[BenchRow]:
        """Measure all cases not stored yet; return rows in order of tokens, batch and method, failed ones included.

        Graphs come after all calls whose peak memory is measured, and a GPU's profiles after all timed calls, which the
        profiler could slow down.
        """
        sizes = [(visual, batch) for visual in self._tokens for batch in self._options.batches]
        groups = [self._group(*size) for size in sizes]
        on_gpu = self._model.placement.kind == "cuda"
        for step in [self._with_graphs] * self._options.graphs + [self._with_busy] * on_gpu:
            groups = [step(rows, *size) for rows, size in zip(groups, sizes, strict=True)]
        return [row for rows in groups for row in rows]

    def _method(self, choice: MethodSpec) -> TimedMethod:
        """Build a method, with the protocol's budget."""
        pruner = choice.pruner()
        if self._options.protocol != "average":
            return TimedMethod(choice, pruner, None)
        try:
            attends = self._model.adapter.attends
            return TimedMethod(choice, with_average(pruner, choice.ratio, len(attends), attends), None)
        except UserError as error:
            return TimedMethod(choice, pruner, str(error))

    def _group(self, visual: int, batch: int) -> list[BenchRow]:
        """Measure all methods on one batch, unless they are stored and were measured in turn with each other."""
        cases = [self._case(method, visual, batch) for method in self._methods]
        stored = [self._file.rows.get(case.setup.identity()) for case in cases]
        known = [row for row in stored if row is not None and row.error != OUT_OF_MEMORY]
        references = {row.vanilla.model_dump_json() if row.vanilla else None for row in known}
        if len(known) == len(cases) and len(references) == 1:
            self._progress.advance(len(cases) * self._calls)
            return known
        self._rounds(cases)
        measured = self._measured(cases[0])
        vanilla = None if measured is None else measured.reference()
        rows = [self._row(case, vanilla) for case in cases]
        self._file.append(rows)
        return rows

    @property
    def _calls(self) -> int:
        return self._options.warmup + self._options.repeats

    def _case(self, method: TimedMethod, visual: int, batch: int) -> BenchCase:
        choice, pruner, refusal = method
        model, options = self._model, self._options
        setup = BenchSetup(
            model=model.name,
            weights=model.weights,
            method=choice.record(pruner, model.adapter.attends),
            ratio=choice.ratio,
            protocol=options.protocol,
            batch=batch,
            visual=visual,
            text=options.text,
            new_tokens=options.new_tokens,
            repeats=options.repeats,
            warmup=options.warmup,
            seed=options.seed,
            dtype=model.placement.dtype,
            attention=model.placement.attention,
            tower_attention=model.placement.tower,
            device=model.placement.device,
            code=self._code,
            environment=self._environment,
        )
        return BenchCase(setup, pruner, error=refusal)

    # --- measuring ----------------------------------------------------------------------------------------------
    def _rounds(self, cases: list[BenchCase]) -> None:
        """Call every case once per round, another one first each time."""
        prompts = self._prompts(cases)
        if prompts is None:
            return
        for number in range(self._calls):
            turn = number % len(cases)
            for case in cases[turn:] + cases[:turn]:
                self._progress.begin(case.label)
                if case.error is None:
                    self._call(case, prompts, keep=number >= self._options.warmup)
                self._progress.advance(1)

    def _prompts(self, cases: list[BenchCase]) -> Prompts | None:
        """Make the batch of all cases; None if it alone does not fit into memory."""
        setup = cases[0].setup
        try:
            if self._bandwidth is None:
                self._bandwidth = copy_bandwidth(self._model.adapter.model.device)
            return random_prompts(self._model.adapter, setup.batch, setup.visual, setup.text, setup.seed)
        except RuntimeError as error:
            for case in cases:
                self._give_up(case, error)
            return None

    def _call(self, case: BenchCase, prompts: Prompts, keep: bool) -> None:
        """Call `generate` once and keep its times."""
        timer = Timer(self._model.adapter)
        try:
            report = self._generate(case, prompts, timer, self._options.new_tokens)
            spans = timer.sample()
        except RuntimeError as error:
            self._give_up(case, error)
        except UserError as error:  # a method that refuses this family becomes a row with the reason
            case.error = str(error)
        else:
            case.report = report
            case.spans += [spans] * keep

    @torch.inference_mode()
    def _generate(self, case: BenchCase, prompts: Prompts, timer: Timer, new_tokens: int) -> PrefillReport:
        """Call `generate` under a method; the timer then has its marks."""
        model = self._model.adapter.model
        case.session = session = case.session or prune(model, case.pruner)
        session.timer, session.samples = timer, prompts.samples
        with timer, session:
            Greedy().generate(model, prompts.inputs, new_tokens)
        return session.reports.pop()

    def _with_graphs(self, rows: list[BenchRow], visual: int, batch: int) -> list[BenchRow]:
        """Add the prefills as CUDA graphs to rows if some lack them, and store these rows."""
        cases = [self._case(method, visual, batch) for method in self._methods]
        prompts = self._prompts(cases) if lack_graphs(rows) else None
        if prompts is None:
            return rows
        self._progress.begin(f"{cases[0].setup.model} · graphs · {batch} x {visual}")
        rows = with_graphs(rows, [case.pruner for case in cases], self._model.adapter, prompts, self._options)
        self._file.append(rows)
        return rows

    def _with_busy(self, rows: list[BenchRow], visual: int, batch: int) -> list[BenchRow]:
        """Add the GPU's busy times to measured rows that lack them, in calls of their own, and store these rows."""
        cases = [self._case(method, visual, batch) for method in self._methods]
        lacking = [i for i, row in enumerate(rows) if row.measured is not None and row.measured.busy is None]
        prompts = self._prompts(cases) if lacking else None
        if prompts is None:
            return rows
        for i in lacking:
            self._progress.begin(f"{cases[i].label} · profiled")
            try:
                rows[i] = rows[i].with_busy(profile_busy(partial(self._profiled, cases[i], prompts)))
            except RuntimeError as error:
                self._give_up(cases[i], error)  # out of memory: the row keeps its times
        self._file.append([rows[i] for i in lacking])
        return rows

    def _profiled(self, case: BenchCase, prompts: Prompts) -> None:
        """Call `generate` for the prefill only, with the timer's marks in the trace of the running profiler."""
        self._generate(case, prompts, Timer(self._model.adapter, traced=True), 1)

    def _give_up(self, case: BenchCase, error: RuntimeError) -> None:
        """End a case that is out of memory; any other error ends the command."""
        if not is_out_of_memory(error):
            raise error
        case.error = OUT_OF_MEMORY
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # --- results ------------------------------------------------------------------------------------------------
    def _measured(self, case: BenchCase) -> BenchResult | None:
        """Summarise a case; None if it was given up."""
        if case.error is not None or case.report is None:
            return None
        seconds = {name: [getattr(spans, name) for spans in case.spans] for name in TIMES}
        rows = case.report.rows
        kept = [row.kv_bytes for row in rows if row.kv_bytes is not None]
        peaks = [spans.peak_bytes for spans in case.spans if spans.peak_bytes is not None]
        return BenchResult(
            seconds={name: values for name, values in seconds.items() if None not in values},
            layers=np.mean([row.entering for row in rows], axis=0).tolist(),
            flops=mean_flops([self._costs.prompt(*row.prefill) for row in rows]),
            kv_bytes=float(np.mean(kept)) if len(kept) == len(rows) else None,
            peak_bytes=max(peaks, default=None),
            context=self._exceeded(rows),
        )

    def _exceeded(self, rows: Sequence[RowReport]) -> int | None:
        """Return the model's context if prompt and generated tokens exceed it; the last token has no position."""
        reached = max(row.positions for row in rows) + self._options.new_tokens - 1
        context = context_length(self._model.adapter.decoder.config)
        return context if context is not None and reached > context else None

    def _row(self, case: BenchCase, vanilla: Reference | None) -> BenchRow:
        return BenchRow(
            identity=case.setup.identity(),
            setup=case.setup,
            measured=self._measured(case),
            error=case.error,
            untried=self._model.adapter.untried(),
            vanilla=vanilla,
            weight_bytes=weight_bytes(self._model.adapter),
            bandwidth=self._bandwidth,
        )
