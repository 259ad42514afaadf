"""Run records made of numbers, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uniprune.results.measurements import Quantity, Timing, TokenLedger
from uniprune.results.records import DatasetRecord, MethodRecord, ModelRecord, RunRecord, ScoreRecord, Setup

SPANS = ("vision", "projector", "method", "prefill", "decode", "total")


BASELINE = "none"


def score(credits: Sequence[float] | Mapping[str, float], **fields: Any) -> ScoreRecord:
    """The mean of credits, of items 0, 1, … unless they are named."""
    items = dict(credits) if isinstance(credits, Mapping) else {str(i): float(c) for i, c in enumerate(credits)}
    values: dict[str, Any] = {
        "value": 100 * float(np.mean(list(items.values()))), "metric": "accuracy", "judge": "exact",
        "rows": len(items), "unparsed": 0, "interval": None, "per_item": items, "details": {},
    }  # fmt: skip
    return ScoreRecord.model_validate(values | fields)


def dataset(credits: Sequence[float] | ScoreRecord | None = None, rows: int = 10, **fields: Any) -> DatasetRecord:
    """A benchmark, scored if there are credits or a score, of images that take 16 tokens in every layer."""
    values: dict[str, Any] = {"ability": "a", "suite": "s", "data": "d", "prompts": "p", "rows": rows, "answered": rows}
    if credits is not None:
        scored = credits if isinstance(credits, ScoreRecord) else score(credits)
        values |= {"rows": scored.rows, "answered": scored.rows, "score": scored, "ledger": tokens(16)}
    return DatasetRecord(**values | fields)


def tokens(average: float, **fields: Any) -> TokenLedger:
    """So many visual tokens in each of two layers."""
    values: dict[str, Any] = {"layers": [average, average], "average": average, "requested": average, "flagged": False}
    return TokenLedger(**values | fields)


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
