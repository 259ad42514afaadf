"""Rows that `bench` stores: one line per measured case, from which its tables are derived."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from uniprune.results.measurements import Flops, Strict
from uniprune.results.records import Environment, MethodRecord
from uniprune.utils.files import JsonLines
from uniprune.utils.hashing import stable_hash

WATCHED = ("vision", "method", "prefill")
"""Spans of which `bench` reports how long the GPU worked."""
LAUNCH_BOUND = 0.6
"""Share of a span below which it is called launch-bound: the GPU waits for the host to start its kernels."""


class BenchSetup(Strict):
    """Everything that determines a measurement; its hash names it."""

    model: str
    """Name in the catalogue or in configs/architectures.yaml."""
    weights: str
    """"random:" and a hash of the dimensions, or `uniprune.results.records.Setup.weights`."""
    method: MethodRecord
    """The pruning method."""
    ratio: float
    """Requested keep ratio."""
    protocol: Literal["site", "average"]
    """Reach of `ratio`: the pruning point, or the average over all decoder layers."""
    batch: int
    """Prompts per call."""
    visual: int
    """Visual tokens of a prompt."""
    text: int
    """Text tokens of a prompt."""
    new_tokens: int
    """Tokens generated."""
    repeats: int
    """Measured calls."""
    warmup: int
    """Calls before them that are not measured."""
    seed: int
    """Seed of pixels, words and methods."""
    dtype: str
    """Floating-point type of the weights."""
    attention: str
    """Attention kernel."""
    tower_attention: str | None = None
    """Attention kernel of the vision tower; null for the same."""
    device: str
    """"cpu", "cuda", "cuda:1", … or "balanced"."""
    code: str
    """Hash of the package's code (`uniprune.evaluation.code_hash.package_hash`)."""
    environment: Environment
    """Software and machine."""

    @property
    def label(self) -> str:
        """Method, ratio and settings, as in tables and plots."""
        if self.method.kind == "none":
            return self.method.name
        passed = (f"{name}={value}" for name, value in self.method.passed.items())
        return " ".join((self.method.name, f"{self.ratio:g}", *passed))

    def identity(self) -> str:
        """Hash all fields."""
        return stable_hash(self.model_dump(mode="json"))


class Reference(Strict):
    """The un-pruned model, measured in turn with the row it belongs to."""

    prefill: float
    """Median seconds of the language model's prefill."""
    ttft: float
    """Median seconds to the first token."""
    total: float
    """Median seconds of the whole call."""
    flops: Flops
    """Operations of a prompt's prefill."""


class BenchResult(Strict):
    """Numbers of one case. Times are of the whole batch, all others of one prompt."""

    seconds: dict[str, list[float]]
    """Span (`uniprune.results.spans.TIMES`) -> one value per repeat; no "tpot" when one token was generated."""
    layers: list[float]
    """Visual tokens entering each decoder layer."""
    flops: Flops
    """Operations of the prefill."""
    kv_bytes: float | None
    """Keys and values in the cache after the prefill."""
    peak_bytes: int | None
    """Most GPU memory in use during any repeat; null on the CPU."""
    busy: dict[str, float] | None = None
    """Span -> seconds in which the GPU worked for it (`uniprune.latency.busy`), measured in calls of their own; null on
    the CPU."""
    context: int | None = None
    """Positions that the model was made for, if prompt and generated tokens take more; else null."""

    def median(self, span: str) -> float:
        """Return the median seconds of a span."""
        return float(np.median(self.seconds[span]))

    def iqr(self, span: str) -> float:
        """Return the seconds between the quartiles of a span."""
        low, high = np.percentile(self.seconds[span], [25, 75])
        return float(high - low)

    def reference(self) -> Reference:
        """Reduce the numbers to those that other rows are compared with."""
        spans = {span: self.median(span) for span in ("prefill", "ttft", "total")}
        return Reference(**spans, flops=self.flops)


class GraphResult(Strict):
    """Prefills of one case as CUDA graphs (`uniprune.latency.graphs`), measured in turn with those of other methods."""

    seconds: list[float]
    """One value per repeat, of the whole batch."""
    segments: int
    """Graphs that one prefill replays."""
    refusal: str | None = None
    """Reason why there are none."""
    vanilla: float | None = None
    """Median seconds of the un-pruned model's graphs; null when it has none."""

    @property
    def median(self) -> float | None:
        """Median seconds; None without any."""
        return float(np.median(self.seconds)) if self.seconds else None


class BenchRow(Strict):
    """One case: model x visual tokens x batch x method x ratio."""

    identity: str
    """Hash of `setup`."""
    setup: BenchSetup
    """Case and machine."""
    measured: BenchResult | None = None
    """Null when it failed."""
    error: str | None = None
    """Reason of its failure."""
    untried: str | None = None
    """Remark about parts of the model that no test of its family runs on."""
    vanilla: Reference | None = None
    """Null when the un-pruned model failed."""
    graphs: GraphResult | None = None
    """Prefills as CUDA graphs; null when they were not requested."""
    weight_bytes: int
    """Weights a forward of the language model reads: its layers, final norm and output head."""
    bandwidth: float | None
    """Bytes per second that a copy on this device read and wrote, measured by the same command."""

    def with_busy(self, busy: dict[str, float] | None) -> BenchRow:
        """Return the row with the GPU's busy times; a row that was not measured stays without."""
        measured = self.measured and self.measured.model_copy(update={"busy": busy})
        return self.model_copy(update={"measured": measured})

    def with_graphs(self, graphs: GraphResult) -> BenchRow:
        """Return the row with its prefills as CUDA graphs."""
        return self.model_copy(update={"graphs": graphs})

    @property
    def floor(self) -> float | None:
        """Seconds in which a copy moves as many bytes as the language model's weights have.

        Unless they fit into a cache, a prefill or a decode step is hardly faster: it must read them.
        """
        return None if self.bandwidth is None else self.weight_bytes / self.bandwidth

    @property
    def launch_bound(self) -> dict[str, float]:
        """Spans for less than `LAUNCH_BOUND` of which the GPU worked, with that share; none without its busy times.

        The un-pruned model's method span has no work of a GPU.
        """
        measured = self.measured
        if measured is None or measured.busy is None:
            return {}
        spans = [span for span in WATCHED if span != "method" or self.setup.method.kind != "none"]
        shares = {span: measured.busy.get(span, 0.0) / measured.median(span) for span in spans}
        return {span: share for span, share in shares.items() if share < LAUNCH_BOUND}

    @property
    def speedups(self) -> dict[str, float]:
        """Measured speed-ups against the un-pruned model, their ceilings by FLOPs, and the share achieved.

        "net" is un-pruned prefill / (prefill + method), the gain of pruning after its own cost; "prefill" the language
        model alone; "ttft" everything before the second token: tower, projector, method and prefill. Empty when either
        side failed.
        """
        if self.measured is None or self.vanilla is None:
            return {}
        ours, theirs = self.measured, self.vanilla
        speed = {name: getattr(theirs, name) / ours.median(name) for name in ("prefill", "ttft", "total")}
        speed["net"] = theirs.prefill / (ours.median("prefill") + ours.median("method"))
        language, whole = theirs.flops.llm / ours.flops.llm, theirs.flops.total / ours.flops.total
        ceiling = {"net": language, "prefill": language, "ttft": whole}
        return {
            **{f"{name} speed-up": value for name, value in speed.items()},
            **{f"{name} ceiling": value for name, value in ceiling.items()},
            **{f"{name} achieved": speed[name] / value for name, value in ceiling.items()},
        }

    @property
    def graph_speedups(self) -> dict[str, float]:
        """Speed-ups among prefills that run as CUDA graphs, their ceiling by FLOPs, and the share achieved.

        "graphs" is that of the graphs alone, "net graphs" un-pruned graphs / (graphs + method). Empty when either side
        has none.
        """
        ours, ceiling = self.graphs, self.speedups.get("prefill ceiling")
        if self.measured is None or ceiling is None or ours is None or ours.median is None or ours.vanilla is None:
            return {}
        speed = {
            "graphs": ours.vanilla / ours.median,
            "net graphs": ours.vanilla / (ours.median + self.measured.median("method")),
        }
        return {
            **{f"{name} speed-up": value for name, value in speed.items()},
            **{f"{name} ceiling": ceiling for name in speed},
            **{f"{name} achieved": value / ceiling for name, value in speed.items()},
        }


class BenchFile:
    """Append-only JSON lines of rows, by identity; of several rows with one identity the last counts.

    Args:
        path: the file, created on the first row.

    Raises:
        UserError: it cannot be read, or a line in it is no row.
    """

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(
            path, BenchRow.model_validate, "a measured row", "delete that line or choose another --output"
        )
        self.rows: Mapping[str, BenchRow] = {row.identity: row for row in self._lines.read()}

    def append(self, rows: Iterable[BenchRow]) -> None:
        """Store rows; they are on disk when this returns.

        Raises:
            UserError: they cannot be written.
        """
        self._lines.append(row.model_dump(mode="json") for row in rows)
