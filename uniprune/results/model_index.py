"""Scores as the `model-index` metadata of a model card of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from uniprune.results.comparison import SeedGroup
from uniprune.results.leaderboard import Leaderboard

TASK = {"type": "image-text-to-text", "name": "Image-Text-to-Text"}


def model_index(board: Leaderboard) -> str:
    """Return YAML with one entry per row of the leaderboard, one result per benchmark.

    The conditions of a score are its arguments: rows and those of the whole benchmark, limit, seeds, md5 of the data,
    judge, keep ratio, measured visual tokens.
    """
    entries = [_entry(group) for group in board.groups if group.scores]
    return yaml.safe_dump({"model-index": entries}, sort_keys=False, allow_unicode=True, width=100)


def _entry(group: SeedGroup) -> dict[str, Any]:
    """Return the entry of runs that differ in their seed only."""
    return {"name": group.label, "results": [_result(group, name) for name in group.scores]}


def _result(group: SeedGroup, name: str) -> dict[str, Any]:
    """Return a benchmark's result: the mean over the seeds."""
    setup, entry = group.setup, group.scores[name]
    scores = [score for run in group.runs if (score := run.datasets[name].score) is not None]
    ledger = entry.ledger
    conditions = {
        "method": setup.method.spelled_out,
        "keep_ratio": setup.ratio,
        "protocol": setup.protocol,
        "visual_tokens_per_layer": ledger and round(ledger.average, 2),
        "rows": scores[0].rows,
        "limit": setup.limit,
        "judge": scores[0].judge,
        "seeds": [run.setup.seed for run in group.runs],
        "precision": setup.dtype,
        "source": group.runs[0].model.source,
        "runs": [run.identity for run in group.runs],
    }
    return {
        "task": dict(TASK),  # YAML would refer to one object by a name
        "dataset": {"name": name, "type": name, "revision": entry.data},
        "metrics": [
            {
                "type": "accuracy" if "accuracy" in scores[0].metric else scores[0].metric,
                "name": scores[0].metric,
                "value": round(_mean([score.value for score in scores]), 4),
                "args": {key: value for key, value in conditions.items() if value is not None},
            }
        ],
        "source": {"name": "UniPrune", "url": "https://arxiv.org/abs/2511.02650"},
    }


def _mean(values: Sequence[float]) -> float:
    """Return the plain mean."""
    return sum(values) / len(values)
