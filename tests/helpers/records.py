"""Run records made of numbers, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uniprune.results.measurements import Quantity, Timing
from uniprune.results.records import DatasetRecord, MethodRecord, ModelRecord, RunRecord, ScoreRecord, Setup

SPANS = ("vision", "projector", "method", "prefill", "decode", "total")


def score(credits: Sequence[float], **fields: Any) -> ScoreRecord:
    """The mean of credits of items 0, 1, …"""
    values: dict[str, Any] = {
        "value": 100 * float(np.mean(credits)), "metric": "accuracy", "judge": "exact", "rows": len(credits),
        "unparsed": 0, "interval": None, "per_item": {str(i): float(c) for i, c in enumerate(credits)}, "details": {},
    }  # fmt: skip
    return ScoreRecord.model_validate(values | fields)


def dataset(credits: Sequence[float] | None = None, rows: int = 10, **fields: Any) -> DatasetRecord:
    """A benchmark, scored if there are credits."""
    values: dict[str, Any] = {"ability": "a", "suite": "s", "data": "d", "prompts": "p", "rows": rows, "answered": rows}
    if credits is not None:
        values |= {"rows": len(credits), "answered": len(credits), "score": score(credits)}
    return DatasetRecord(**values | fields)


def timed(seconds: float, rows: int = 10) -> Timing:
    """Every span takes this long per row."""
    span = Quantity(median=1000 * seconds, iqr=0, total=rows * seconds)
    return Timing(**dict.fromkeys(SPANS, span), new_tokens=1, batch_size=1, rows=rows)


def run(
    method: str | MethodRecord,
    datasets: Mapping[str, DatasetRecord],
    ratio: float = 0.5,
    seed: int = 0,
    model: str = "m",
    **fields: Any,
) -> RunRecord:
    """A run of a method, "none" being the un-pruned model; `fields` are those of its setup."""
    if isinstance(method, str):
        kind, ratio = ("none", 1.0) if method == "none" else ("pre-llm", ratio)
        resolved = [{"ratio": ratio, "seed": seed}]
        method = MethodRecord(name=method, kind=kind, passed={}, resolved=resolved, stages=[(0, ratio)], code="c")
    values: dict[str, Any] = {
        "weights": "w", "processor": {"class": "P"}, "method": method, "ratio": ratio, "protocol": "site", "seed": seed,
        "max_new_tokens": None, "limit": None, "dtype": "float32", "attention": "sdpa", "device": "cpu",
    }  # fmt: skip
    setup = Setup(**values | fields)
    record = ModelRecord(name=model, source="s", family="f", layers=6)
    return RunRecord(identity=setup.identity(), model=record, setup=setup, datasets=dict(datasets))
