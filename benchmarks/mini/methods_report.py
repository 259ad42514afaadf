"""Every method on the mini suite: `python -m uniprune.benchmarks.mini.methods_report` after the runs it names.

Writes docs/mini-suite-methods.csv (one line per model, method and ratio) and docs/mini-suite-methods.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

import numpy as np

from uniprune.results.records import DatasetRecord, RunRecord

from .report import ABILITIES, MODELS, credits, entries_of, interval, publish

RATIOS = (0.333, 0.222, 0.111)
PRE, INTRA = "random-pre", "random-intra"
SEEDS = (0, 1, 2, 3, 4)
SINGLE = (
    "cdpruner dart divprune fastv fitprune fopru gprune mustdrop pooling prumerge prumerge+ pyramiddrop sparsevlm "
    "sparsevlm-v1 sparsevlm-v2 visionzip vispruner vtw zspaprune"
)
COMPOSED = (
    "divprune+fastv divprune+random-intra gprune+fastv gprune+random-intra random-pre+fastv random-pre+random-intra"
)
COLUMNS = ("model", "method", "ratio", "visual tokens", *ABILITIES, "average", "spread", "random", "low", "high")

COMMAND = f"""for model in {" ".join(MODELS)}; do
  python run.py --model $model --ratio {" ".join(map(str, RATIOS))} --batch-size 60 --share-vision 4 \\
    --output results/mini-suite --method none {PRE} {INTRA} \\
    {SINGLE} \\
    {COMPOSED}
  for seed in {" ".join(map(str, SEEDS[1:]))}; do
    python run.py --model $model --method {PRE} {INTRA} --ratio {" ".join(map(str, RATIOS))} \\
      --seed $seed --batch-size 60 --share-vision 4 --output results/mini-suite
  done
done
python -m uniprune.benchmarks.mini.methods_report --results results/mini-suite"""

_TEXT = """# Every method on the mini suite

Every registered method, and every composition of UniPruneBench's two-stage table, on the three tiny models. As with the
[curves](mini-suite.md), **this shows that every method runs end to end and loses accuracy as it prunes, not how methods
rank on real models**.

Measured by

```sh
{command}
```

* *visual tokens*: mean over decoder layers of what entered them, measured. The ratio holds at the pruning point, so
  methods inside the language model see more tokens than methods before it, and schedules differ again.
* *average* ± half the width of its 95 % bootstrap interval; for random pruning ± the standard deviation over
  {seeds} seeds.
* *minus random*: difference of the mean credit per item to random pruning at the same ratio ({seeds} seeds, `{pre}` for
  methods before the language model, `{intra}` for all others), items paired, with its 95 % bootstrap interval; **bold**
  where the interval excludes 0. Nothing was tuned for this table.
"""


def rows(records: Iterable[RunRecord]) -> list[dict[str, str]]:
    """One row per model, method and ratio, in table order; the seeds of random pruning together."""
    runs: dict[tuple[str, str, float], list[tuple[RunRecord, dict[str, DatasetRecord]]]] = defaultdict(list)
    for record in records:
        if entries := entries_of(record):
            runs[record.model.name, record.setup.method.name, record.setup.ratio].append((record, entries))
    out = []
    for (model, method, ratio), same in runs.items():
        if method != "none" and ratio not in RATIOS:
            continue
        many = method in (PRE, INTRA)
        chosen = [entries for record, entries in same if many or record.setup.seed == 0]
        kind = same[0][0].setup.method.kind
        row = {"model": model, "method": method, "ratio": f"{ratio:g}"}
        row |= _scores(chosen, many)
        reference = [entries for _, entries in runs.get((model, PRE if kind == "pre-llm" else INTRA, ratio), [])]
        if not many and method != "none" and reference:
            row |= _against(chosen[0], reference)
        out.append(row)
    order = ["none", PRE, INTRA, *SINGLE.split(), *COMPOSED.split()]
    out.sort(key=lambda row: (MODELS.index(row["model"]), order.index(row["method"]), -float(row["ratio"])))
    return out


def _scores(runs: Sequence[dict[str, DatasetRecord]], many: bool) -> dict[str, str]:
    """Means over the runs of one method, and how far they spread."""
    averages = [fmean(entry.score.value for entry in entries.values() if entry.score) for entries in runs]
    tokens = [entry.ledger.average for entries in runs for entry in entries.values() if entry.ledger]
    if many:
        spread = stdev(averages) if len(averages) > 1 else float("nan")
    else:
        low, high = interval([credits(entry) for entry in runs[0].values()])
        spread = (high - low) / 2
    scores = {
        ability: fmean(
            entry.score.value
            for entries in runs
            for entry in entries.values()
            if entry.score and entry.ability == ability
        )
        for ability in ABILITIES
    }
    return {
        "visual tokens": f"{fmean(tokens):.1f}",
        **{ability: f"{score:.1f}" for ability, score in scores.items()},
        "average": f"{fmean(averages):.1f}",
        "spread": f"{spread:.1f}",
    }


def _against(entries: dict[str, DatasetRecord], reference: Sequence[dict[str, DatasetRecord]]) -> dict[str, str]:
    """Paired difference of the mean credit to random pruning, averaged over its seeds."""
    differences = []
    for name, entry in entries.items():
        random = np.mean([credits(other[name]) for other in reference], axis=0)
        differences.append(credits(entry) - random)
    low, high = interval(differences)
    middle = 100 * fmean(float(one.mean()) for one in differences)
    return {"random": f"{middle:+.1f}", "low": f"{low:+.1f}", "high": f"{high:+.1f}"}


def markdown(table: Sequence[dict[str, str]]) -> str:
    """The page: one table per model."""
    parts = [_TEXT.format(command=COMMAND, seeds=len(SEEDS), pre=PRE, intra=INTRA)]
    shown = ("method", "ratio", "visual tokens", *ABILITIES)
    for model in MODELS:
        parts.append(f"\n## {model}\n")
        parts.append("| " + " | ".join([*shown, "average", "minus random"]) + " |")
        parts.append("|---" * 2 + "|---:" * len(shown) + "|")
        for row in table:
            if row["model"] == model:
                cells = [*(row[c] for c in shown), f"{row['average']} ± {row['spread']}", _difference(row)]
                parts.append("| " + " | ".join(cells) + " |")
    return "\n".join(parts) + "\n"


def _difference(row: dict[str, str]) -> str:
    """The last cell."""
    if "random" not in row:
        return ""
    sure = float(row["low"]) > 0 or float(row["high"]) < 0
    middle = f"**{row['random']}**" if sure else row["random"]
    return f"{middle} ({row['low']} to {row['high']})"


if __name__ == "__main__":
    publish(__doc__, "mini-suite-methods", rows, markdown, COLUMNS)
