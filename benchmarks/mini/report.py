"""The measured table of the mini suite: `python -m uniprune.benchmarks.mini.report` after the runs it names.

Writes docs/mini-suite.csv (one line per model, method and ratio) and docs/mini-suite.md (the same, readable).
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from uniprune.results.records import DatasetRecord, RunRecord, Store

RATIOS = (0.5, 0.333, 0.222, 0.111)
METHODS = ("random-pre", "random-intra", "divprune", "fastv")
MODELS = ("tiny-llava", "tiny-internvl", "tiny-qwen2.5-vl")
ABILITIES = ("comprehensive", "mathematical", "ocr", "instruction", "multidisciplinary", "hallucination")
COLUMNS = ("model", "method", "ratio", "visual tokens", *ABILITIES, "average", "half-width")

CsvRows = Sequence[dict[str, str]]

COMMAND = (
    f"for model in {' '.join(MODELS)}; do\n"
    f"  python run.py --model $model --method none {' '.join(METHODS)} \\\n"
    f"    --ratio {' '.join(map(str, RATIOS))} --batch-size 60 --share-vision 4 \\\n"
    f"    --output results/mini-suite\n"
    "done\n"
    "python -m uniprune.benchmarks.mini.report --results results/mini-suite"
)

_TEXT = """# The mini suite, measured

What the three tiny models score on the ten generated datasets, un-pruned and pruned. **This shows that the harness
works, not how methods rank on real models**: pictures of 96 x 96 pixels with a few shapes and characters, models of
1.3 to 1.6 million parameters that were trained with background tokens dropped more often than others, so they forgive
whatever keeps the foreground. VLMEvalKit makes the prompts and the scores; MathVista, Math-Vision and MIA-Bench use the
rule judge.

Measured by

```sh
{command}
```

Columns are the six ability groups (mean headline score of their datasets, 0–100) and the average over the ten datasets.
± is half the width of the 95 % bootstrap interval of the average credit per item, resampled within each dataset
(accuracy stands in for POPE's F1 and HallusionBench's three accuracies there). Random methods: one seed.
"""


def entries_of(record: RunRecord) -> dict[str, DatasetRecord]:
    """The scored tables of the mini suite in a run; none unless all ten are."""
    entries = {name: entry for name, entry in record.datasets.items() if entry.suite == "mini" and entry.score}
    return entries if len(entries) == 10 else {}


def rows(records: Iterable[RunRecord]) -> list[dict[str, str]]:
    """One row per complete run of this page's methods, in table order."""
    out = []
    for record in records:
        entries, method, seed = entries_of(record), record.setup.method, record.setup.seed
        if not entries or method.name not in ("none", *METHODS) or seed or record.setup.ratio not in (1, *RATIOS):
            continue
        tokens = fmean(entry.ledger.average for entry in entries.values() if entry.ledger)
        scores = {ability: _mean(entries.values(), ability) for ability in ABILITIES}
        average = fmean(entry.score.value for entry in entries.values() if entry.score)
        row = {
            "model": record.model.name,
            "method": method.name,
            "ratio": f"{record.setup.ratio:g}",
            "visual tokens": f"{tokens:.1f}",
            **{ability: f"{score:.1f}" for ability, score in scores.items()},
            "average": f"{average:.1f}",
            "half-width": f"{_half_width(entries.values()):.1f}",
        }
        out.append(row)
    order = ("none", *METHODS)
    out.sort(key=lambda r: (MODELS.index(r["model"]), order.index(r["method"]), -float(r["ratio"])))
    return out


def _mean(entries: Iterable[DatasetRecord], ability: str) -> float:
    return fmean(entry.score.value for entry in entries if entry.score and entry.ability == ability)


def _half_width(entries: Iterable[DatasetRecord]) -> float:
    """Half the interval of the mean over datasets of the mean credit, in points."""
    low, high = interval([credits(entry) for entry in entries])
    return (high - low) / 2


def credits(entry: DatasetRecord) -> np.ndarray:
    """Credit of every item of a scored table, 0-1, in the order of the items."""
    assert entry.score is not None
    return np.array([value for _, value in sorted(entry.score.per_item.items())])


def interval(items: Iterable[np.ndarray], resamples: int = 4000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over datasets of the mean item, in points; items resampled per dataset."""
    rng = np.random.default_rng(0)
    means = [rng.choice(one, (resamples, len(one))).mean(1) for one in items]
    low, high = np.percentile(np.mean(means, axis=0), [2.5, 97.5])
    return 100 * float(low), 100 * float(high)


def markdown(table: Sequence[dict[str, str]]) -> str:
    """The page: one table per model."""
    parts = [_TEXT.format(command=COMMAND)]
    for model in MODELS:
        parts.append(f"\n## {model}\n")
        shown = ("method", "ratio", "visual tokens", *ABILITIES)
        parts.append("| " + " | ".join([*shown, "average"]) + " |")
        parts.append("|---" * 2 + "|---:" * (len(shown) - 1) + "|")
        for row in table:
            if row["model"] == model:
                cells = [*(row[c] for c in shown), f"{row['average']} ± {row['half-width']}"]
                parts.append("| " + " | ".join(cells) + " |")
    return "\n".join(parts) + "\n"


def publish(
    description: str,
    name: str,
    make: Callable[[Iterable[RunRecord]], CsvRows],
    page: Callable[[CsvRows], str],
    columns: Sequence[str],
) -> None:
    """Command line of a report: reads the stored runs, writes `name`.csv and `name`.md, and prints the page."""
    parser = argparse.ArgumentParser(description=description.split("\n\n")[0])
    parser.add_argument("--results", type=Path, default=Path("results/mini-suite"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args()
    table = make(Store(args.results).records())
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(table)
    (args.docs / f"{name}.csv").write_text(file.getvalue(), encoding="utf-8")
    (args.docs / f"{name}.md").write_text(page(table), encoding="utf-8")
    sys.stdout.write(page(table))


if __name__ == "__main__":
    publish(__doc__, "mini-suite", rows, markdown, COLUMNS)
