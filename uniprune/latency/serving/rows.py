"""Rows that `serve-bench` stores: one line per series and concurrency, from which its tables are derived."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uniprune.latency.serving.load import Load
from uniprune.latency.serving.options import LoadOptions
from uniprune.results.measurements import Strict
from uniprune.utils.files import JsonLines
from uniprune.utils.hashing import stable_hash

SHORT = "short prompt"
"""The series without images, whose prompts are as long as the pruned ones."""
TOWER, SELECTION = "tower", "selection"
SPENT = {
    "queue": "vllm:request_queue_time_seconds_sum",
    "prefill": "vllm:request_prefill_time_seconds_sum",
    "decode": "vllm:request_decode_time_seconds_sum",
    "requests": "vllm:request_queue_time_seconds_count",
    "steps": "vllm:iteration_tokens_total_count",
    "step tokens": "vllm:iteration_tokens_total_sum",
    "cached tokens": "vllm:prompt_tokens_cached_total",
    "preemptions": "vllm:num_preemptions_total",
    "images": "uniprune_images_total",
}
"""Name in a row -> counter of the server; absent where a server has none."""


class ServeSetup(Strict):
    """Everything that determines a measurement; its hash names it."""

    series: str
    """Method of the server, or `SHORT`."""
    resolved: dict[str, Any]
    """Every field of the method."""
    code: str
    """Hash of the method's source files."""
    weights: str
    """As `uniprune.results.records.Setup.weights`."""
    model: str
    """The server's name of the model."""
    engine: str
    """Engine and version."""
    dtype: str
    """Precision."""
    device: str
    """"cpu" or "cuda"."""
    machine: str
    """The server's accelerator or processor."""
    concurrency: int
    """Requests in flight."""
    requests: int
    """Requests per round."""
    rounds: int
    """Rounds."""
    side: int
    """Pixels per side of the image, in series with one."""
    words: int
    """Words of the text beside it."""
    short: int | None = None
    """Words of a prompt of `SHORT`; null for other series."""
    new_tokens: int
    """Tokens generated."""
    seed: int
    """Seed of pixels and words."""

    @property
    def label(self) -> str:
        """Method, ratio and positions."""
        if self.series in ("none", SHORT):
            return self.series
        return f"{self.series} {self.resolved['ratio']:g} {self.resolved['positions']}"

    def identity(self) -> str:
        """Hash all fields."""
        return stable_hash(self.model_dump(mode="json"))

    @property
    def load(self) -> str:
        """Settings that series share which are compared with each other."""
        return self.model_dump_json(exclude={"series", "resolved", "code", "short"})


class ServeResult(Strict):
    """Numbers of one series at one concurrency, all rounds together."""

    seconds: list[float]
    """Duration of every round."""
    ttft: list[float]
    """Seconds to the first token, one value per request."""
    tpot: list[float]
    """Seconds per further token, one value per request."""
    prompt: float
    """Mean tokens of a prompt, as they reach the language model."""
    spent: dict[str, float]
    """Growth of the server's counters (`SPENT`)."""
    spans: dict[str, float]
    """Seconds of the engine in tower and selection; empty if the server does not publish them."""

    @classmethod
    def of(cls, loads: Sequence[Load]) -> ServeResult:
        """Join rounds."""
        answered = [one for load in loads for one in load.answered]
        grown = {name: sum(load.spent.get(name, 0.0) for load in loads) for name in {n for x in loads for n in x.spent}}
        spans = {name: grown[key] for name in (TOWER, SELECTION) if (key := f"uniprune_{name}_seconds_total") in grown}
        return cls(
            seconds=[load.seconds for load in loads],
            ttft=[one.ttft for one in answered],
            tpot=[one.tpot for one in answered],
            prompt=float(np.mean([one.prompt for one in answered])),
            spent={name: grown[key] for name, key in SPENT.items() if key in grown},
            spans=spans,
        )

    @property
    def throughput(self) -> float:
        """Requests per second."""
        return len(self.ttft) / sum(self.seconds)

    def each(self, name: str) -> float | None:
        """Return the milliseconds per request that the engine counts as "queue", "prefill" or "decode"."""
        count = self.spent.get("requests")
        return 1000 * self.spent[name] / count if count and name in self.spent else None

    def per_image(self, span: str) -> float | None:
        """Return the milliseconds per image in tower or selection."""
        images = self.spent.get("images")
        return 1000 * self.spans[span] / images if images and span in self.spans else None

    def share(self, span: str) -> float | None:
        """Return the share of the time under load that the engine is in tower or selection."""
        return self.spans[span] / sum(self.seconds) if span in self.spans else None


class ServeRow(Strict):
    """One series at one concurrency."""

    identity: str
    """Hash of `setup`."""
    setup: ServeSetup
    """Case and machine."""
    measured: ServeResult
    """Numbers."""


class ServeFile:
    """Append-only JSON lines of rows, by identity; of several rows with one identity the last counts.

    Args:
        path: the file, created on the first row.

    Raises:
        UserError: it cannot be read, or a line in it is no row.
    """

    def __init__(self, path: Path) -> None:
        remedy = "delete that line or choose another --output"
        self._lines = JsonLines(path, ServeRow.model_validate, "a measured row", remedy)
        self.rows: Mapping[str, ServeRow] = {row.identity: row for row in self._lines.read()}

    def append(self, rows: Iterable[ServeRow]) -> None:
        """Store rows; they are on disk when this returns.

        Raises:
            UserError: they cannot be written.
        """
        self._lines.append(row.model_dump(mode="json") for row in rows)


def common_fields(options: LoadOptions, concurrency: int) -> dict[str, Any]:
    """Return the fields of a setup that all series share."""
    names = ("requests", "rounds", "side", "words", "new_tokens", "seed")
    return {"concurrency": concurrency, **{name: getattr(options, name) for name in names}}
