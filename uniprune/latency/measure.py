"""Measuring: calls of `generate` on equal prompts, methods in turn, so that drift of the machine favours none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from uniprune.engine import PrefillReport, prune
from uniprune.engine.timer import Spans, Timer
from uniprune.errors import UserError
from uniprune.evaluation.code_hash import package_hash
from uniprune.evaluation.environment import environment
from uniprune.evaluation.generation import is_out_of_memory
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.latency.floors import copy_bandwidth, weight_bytes
from uniprune.latency.prompts import LEAST_TEXT, Prompts, random_prompts
from uniprune.latency.rows import BenchFile, BenchResult, BenchRow, BenchSetup, Reference
from uniprune.latency.subject import TimedModel, check_tokens
from uniprune.modeling.flops import CostModel
from uniprune.modeling.greedy import greedy
from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import with_average
from uniprune.results.aggregate import mean_flops
from uniprune.results.spans import TIMES
from uniprune.utils.console import RunProgress

OUT_OF_MEMORY = "out of memory"
"""Error of rows that are tried again: the machine may have more memory to spare next time."""


@dataclass(frozen=True)
class BenchOptions:
    """What is measured beside models and methods.

    Attributes:
        batches: prompts per call. tokens: visual tokens of a prompt; None for one image of usual size.
        text, new_tokens: words of a prompt, and tokens of an answer. repeats, warmup: calls measured, and not measured
            before them. seed: of pixels and words. protocol: as for evaluations.
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


@dataclass
class BenchCase:
    """One method on one batch, while it is measured.

    Attributes:
        setup: what it is. pruner: the method. spans, report: what was seen so far. error: why it was given up.
    """

    setup: BenchSetup
    pruner: Pruner
    spans: list[Spans] = field(default_factory=list)
    report: PrefillReport | None = None
    error: str | None = None

    @property
    def label(self) -> str:
        """As shown beside the progress bar."""
        one = self.setup
        return f"{one.model} · {one.method.name} {one.ratio:g} · {one.batch} x {one.visual}"


class Bench:
    """All cells of one model.

    Args:
        subject: the model. choices: methods, the un-pruned model first. options: the rest.
        file: where rows are stored and finished ones found. progress: counts calls of `generate`.

    Raises:
        UserError: a method does not exist, no budget is possible, or the model cannot take that many visual tokens.
    """

    def __init__(
        self,
        subject: TimedModel,
        choices: Sequence[MethodSpec],
        options: BenchOptions,
        file: BenchFile,
        progress: RunProgress,
    ) -> None:
        self._subject, self._options, self._file, self._progress = subject, options, file, progress
        self._costs = CostModel(subject.family)
        self._environment, self._code = environment(subject.placement.device), package_hash()
        self._tokens = options.tokens or (subject.family.usual_tokens,)
        check_tokens(subject.family, self._tokens)
        self._methods = [(choice, *self._pruner(choice)) for choice in choices]
        problems = [problem for choice, _, problem in self._methods if choice.name != "none"]
        if problems and all(problems):
            raise UserError(problems[0])
        self._bandwidth: float | None = None

    def run(self) -> list[BenchRow]:
        """Measure what is not stored yet; rows in order of tokens, batch and method, failed ones included."""
        return [row for visual in self._tokens for batch in self._options.batches for row in self._group(visual, batch)]

    def _pruner(self, choice: MethodSpec) -> tuple[Pruner, str | None]:
        """A method, and why its budget is impossible on this model, if it is."""
        pruner = choice.pruner()
        if self._options.protocol != "average":
            return pruner, None
        try:
            return with_average(pruner, choice.ratio, len(self._subject.family.layers)), None
        except UserError as error:
            return pruner, str(error)

    def _group(self, visual: int, batch: int) -> list[BenchRow]:
        """All methods on one batch: as stored, if they were measured in turn with each other, or all anew."""
        cells = [self._cell(*method, visual, batch) for method in self._methods]
        stored = [self._file.rows.get(cell.setup.identity()) for cell in cells]
        known = [row for row in stored if row is not None and row.error != OUT_OF_MEMORY]
        beside = {row.vanilla.model_dump_json() if row.vanilla else None for row in known}
        if len(known) == len(cells) and len(beside) == 1:
            self._progress.advance(len(cells) * self._calls)
            return known
        self._rounds(cells)
        vanilla = _reference(self._measured(cells[0]))
        rows = [self._row(cell, vanilla) for cell in cells]
        self._file.append(rows)
        return rows

    @property
    def _calls(self) -> int:
        return self._options.warmup + self._options.repeats

    def _cell(self, choice: MethodSpec, pruner: Pruner, error: str | None, visual: int, batch: int) -> BenchCase:
        subject, options = self._subject, self._options
        setup = BenchSetup(
            model=subject.name,
            weights=subject.weights,
            method=choice.record(pruner, len(subject.family.layers)),
            ratio=choice.ratio,
            protocol=options.protocol,
            batch=batch,
            visual=visual,
            text=options.text,
            new_tokens=options.new_tokens,
            repeats=options.repeats,
            warmup=options.warmup,
            seed=options.seed,
            dtype=subject.placement.dtype,
            attention=subject.placement.attention,
            device=subject.placement.device,
            code=self._code,
            environment=self._environment,
        )
        return BenchCase(setup, pruner, error=error)

    # --- measuring ----------------------------------------------------------------------------------------------
    def _rounds(self, cells: list[BenchCase]) -> None:
        """Every cell once per round, another one first each time."""
        prompts = self._prompts(cells)
        if prompts is None:
            return
        for number in range(self._calls):
            turn = number % len(cells)
            for cell in cells[turn:] + cells[:turn]:
                self._progress.begin(cell.label)
                if cell.error is None:
                    self._call(cell, prompts, keep=number >= self._options.warmup)
                self._progress.advance(1)

    def _prompts(self, cells: list[BenchCase]) -> Prompts | None:
        """The batch all cells are measured on; None where it alone is too large."""
        setup = cells[0].setup
        try:
            if self._bandwidth is None:
                self._bandwidth = copy_bandwidth(self._subject.family.model.device)
            return random_prompts(self._subject.family, setup.batch, setup.visual, setup.text, setup.seed)
        except RuntimeError as error:
            for cell in cells:
                self._give_up(cell, error)
            return None

    @torch.inference_mode()
    def _call(self, cell: BenchCase, prompts: Prompts, keep: bool) -> None:
        """One call of `generate`."""
        family = self._subject.family
        try:
            with Timer(family) as timer, prune(family.model, cell.pruner, timer) as session:
                session.samples = prompts.samples
                family.model.generate(**prompts.inputs, **greedy(self._options.new_tokens))
                spans = timer.sample()
        except RuntimeError as error:
            self._give_up(cell, error)
        except UserError as error:  # a method that refuses this family is a row that says so
            cell.error = str(error)
        else:
            cell.report = session.reports[-1]
            cell.spans += [spans] * keep

    def _give_up(self, cell: BenchCase, error: RuntimeError) -> None:
        """Out of memory ends a cell; any other error ends the command."""
        if not is_out_of_memory(error):
            raise error
        cell.error = OUT_OF_MEMORY
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # --- results ------------------------------------------------------------------------------------------------
    def _measured(self, cell: BenchCase) -> BenchResult | None:
        """What was seen of a cell; None when it was given up."""
        if cell.error is not None or cell.report is None:
            return None
        seconds = {name: [getattr(one, name) for one in cell.spans] for name in TIMES}
        rows = cell.report.rows
        kept = [row.kv_bytes for row in rows if row.kv_bytes is not None]
        peaks = [one.peak_bytes for one in cell.spans if one.peak_bytes is not None]
        return BenchResult(
            seconds={name: values for name, values in seconds.items() if None not in values},
            layers=np.mean([row.entering for row in rows], axis=0).tolist(),
            flops=mean_flops([self._costs.prompt(row.encoded, row.lengths) for row in rows]),
            kv_bytes=float(np.mean(kept)) if len(kept) == len(rows) else None,
            peak_bytes=max(peaks, default=None),
        )

    def _row(self, cell: BenchCase, vanilla: Reference | None) -> BenchRow:
        return BenchRow(
            identity=cell.setup.identity(),
            setup=cell.setup,
            measured=self._measured(cell),
            error=cell.error,
            vanilla=vanilla,
            weight_bytes=weight_bytes(self._subject.family),
            bandwidth=self._bandwidth,
        )


def _reference(measured: BenchResult | None) -> Reference | None:
    return None if measured is None else measured.reference()
