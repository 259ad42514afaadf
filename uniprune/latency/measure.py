"""Measure calls of `generate` on equal prompts, methods in turn, so that drift of the machine favours none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch

from uniprune.engine import PrefillReport, RowReport, prune
from uniprune.engine.timer import Spans, Timer
from uniprune.errors import UserError
from uniprune.evaluation.code_hash import package_hash
from uniprune.evaluation.environment import environment
from uniprune.evaluation.generation import is_out_of_memory
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.latency.floors import copy_bandwidth, weight_bytes
from uniprune.latency.prompts import LEAST_TEXT, Prompts, random_prompts
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

OUT_OF_MEMORY = "out of memory"
"""Error of rows that are measured again: the machine may have more free memory next time."""


@dataclass(frozen=True)
class BenchOptions:
    """Sizes of the prompts and number of the calls.

    Attributes:
        batches: prompts per call.
        tokens: visual tokens of a prompt; None for one image of usual size.
        text: words of a prompt.
        new_tokens: tokens generated.
        repeats: measured calls.
        warmup: calls before them that are not measured.
        seed: of pixels and words.
        protocol: as for evaluations.
    """

    batches: tuple[int, ...] = (1,)
    tokens: tuple[int, ...] | None = None
    text: int = 60
    new_tokens: int = 8
    repeats: int = 10
    warmup: int = 2
    seed: int = 0
    protocol: Literal["site", "average"] = "site"

    def __post_init__(self) -> None:
        least = {"text": LEAST_TEXT, "new_tokens": 1, "repeats": 1, "warmup": 0, "batches": 1, "tokens": 1}
        options = {"text": "text-tokens", "new_tokens": "new-tokens", "batches": "batch"}
        for name, smallest in least.items():
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and number < smallest:
                    raise UserError(f"--{options.get(name, name)} {number} must be at least {smallest}")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"--seed {self.seed} must be from 0 to 2 ** 63 - 1")


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
    """

    setup: BenchSetup
    pruner: Pruner
    spans: list[Spans] = field(default_factory=list)
    report: PrefillReport | None = None
    error: str | None = None

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
        """Measure all cases not stored yet; return rows in order of tokens, batch and method, failed ones included."""
        return [row for visual in self._tokens for batch in self._options.batches for row in self._group(visual, batch)]

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
        vanilla = _reference(self._measured(cases[0]))
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

    @torch.inference_mode()
    def _call(self, case: BenchCase, prompts: Prompts, keep: bool) -> None:
        """Call `generate` once."""
        adapter = self._model.adapter
        try:
            with Timer(adapter) as timer, prune(adapter.model, case.pruner, timer) as session:
                session.samples = prompts.samples
                Greedy().generate(adapter.model, prompts.inputs, self._options.new_tokens)
                spans = timer.sample()
        except RuntimeError as error:
            self._give_up(case, error)
        except UserError as error:  # a method that refuses this family becomes a row with the reason
            case.error = str(error)
        else:
            case.report = session.reports[-1]
            case.spans += [spans] * keep

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
            flops=mean_flops([self._costs.prompt(row.encoded, row.lengths, row.pairs, row.tokens) for row in rows]),
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


def _reference(measured: BenchResult | None) -> Reference | None:
    return None if measured is None else measured.reference()
