"""A folder of made-up runs for the report: three ratios of many methods, one benchmark being the plugin's `small`.

`python -m tests.helpers.page_runs FOLDER METHODS` writes such a folder with ten benchmarks of a hundred rows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from tests.helpers import records
from tests.helpers.records import dataset, timed, tokens
from uniprune.results.measurements import Flops
from uniprune.results.records import DatasetRecord, Environment, RunRecord
from uniprune.results.store import Store

RATIOS = (0.111, 0.222, 0.333)
MACHINE = Environment(versions={"uniprune": "1.2.3"}, git="abc123", device="NVIDIA H100", threads=8)
ABILITIES = {"small": "perception", "charts": "ocr", "sums": "mathematical"}
MORE = {f"more-{i}": ("perception", "ocr", "mathematical", "instruction", "hallucination")[i % 5] for i in range(7)}
KEPT = {
    "grids": [{"size": [1, 2, 2], "area": [0, 0, 1, 1], "pictures": [0]}],
    "stages": [{"layer": 0, "bits": "4A=="}, {"layer": 2, "bits": "gA=="}],
}
"""Of 2 x 2 tokens three are kept before layer 0, and the first one before layer 2."""


def entry(name: str, ability: str, share: float, ratio: float, rows: int = 12, batch: str = "8") -> DatasetRecord:
    """A benchmark of which this share of the items is right."""
    right = np.random.default_rng([rows, *name.encode(), int(1000 * share)]).random(rows) < share
    flops = Flops(vision=1e12, projector=1e11, llm=9e12 * ratio)
    return dataset(
        [float(one) for one in right], ability=ability, data="small-1", whole=rows, batching={batch: rows},
        environments=[MACHINE], days=["2026-03-31"], timing=timed(0.01 * ratio),
    ).model_copy(update={"ledger": tokens(144 * ratio, initial=144, flops=flops, kv_bytes=1e6 * ratio)})  # fmt: skip


def made_up(
    methods: int, limit: int | None = None, benchmarks: dict[str, str] = ABILITIES, rows: int = 12
) -> list[RunRecord]:
    """The un-pruned run and three ratios of so many methods."""
    cases = [("none", 1.0), *((f"method-{i}", ratio) for i in range(methods) for ratio in RATIOS)]
    found = []
    for place, (method, ratio) in enumerate(cases):
        share = 0.95 if method == "none" else 0.5 + 0.4 * ratio + 0.3 * (place % 7) / 7
        datasets = {name: entry(name, ability, share, ratio, rows) for name, ability in benchmarks.items()}
        datasets = {name: one.model_copy(update={"whole": 100} if limit else {}) for name, one in datasets.items()}
        found.append(records.run(method, datasets, ratio, model="model-0", limit=limit, device="cuda"))
    return found


def stored(runs: list[RunRecord], folder: Path) -> Store:
    """The folder with these runs and their predictions."""
    store = Store(folder)
    for run in runs:
        sized = {}
        for name, one in run.datasets.items():
            credits = one.score.per_item if one.score else {}
            kept = {"selections": KEPT} if name == "small" and run.setup.method.kind != "none" else {}
            lines = [{"index": index, "prediction": f"<i>{credit:g}</i>", **kept} for index, credit in credits.items()]
            path = store.predictions(run.identity, name)
            path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
            sized[name] = one.model_copy(update={"size": store.size(run.identity, name)})
        store.write(run.model_copy(update={"datasets": sized}))
    return store


if __name__ == "__main__":
    stored(made_up(int(sys.argv[2]), benchmarks=ABILITIES | MORE, rows=100), Path(sys.argv[1]))
