"""Terminal table, CSV and JSON of rows of `serve-bench`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.table import Table

from uniprune.latency.serving.rows import SELECTION, SHORT, TOWER, ServeRow
from uniprune.utils import tables
from uniprune.utils.json_text import to_json as strict_json

CellValue = str | float | int | None
SHOWN = {
    "in flight": "d",
    "series": "",
    "prompt tokens": ".1f",
    "requests/s": ".3g",
    "x": ".2f",
    "TTFT p50 ms": ".4g",
    "TTFT p99 ms": ".4g",
    "TPOT p50 ms": ".3g",
    "TPOT p99 ms": ".3g",
    "queue ms": ".3g",
    "prefill ms": ".3g",
    "decode ms": ".3g",
    "tower ms": ".3g",
    "selection ms": ".3g",
    "tower share": ".0%",
    "selection share": ".0%",
    "tokens per step": ".3g",
}
"""Column of the terminal table -> its format."""
VARYING = ("model", "weights", "engine", "dtype", "machine", "image side", "new tokens")
"""Columns that the terminal table has, too, where rows differ in them."""
NOTES = (
    "TTFT: from sending a request to its first token; TPOT: per further token; x: requests/s against the un-pruned "
    f"server at the same concurrency. {SHORT}: no image, as many tokens as the pruned prompt: what no pruning before "
    "the language model can beat. A random method: selection for free.",
    "queue, prefill, decode: per request, by the engine's own counters: waiting for the scheduler, from there to the "
    "first token (tower and selection included, and waiting for others in the same steps), and after it.",
    "tower (with projector), selection: per image, while the engine does nothing else, so their shares of the time "
    "under load are lost to all requests in flight. Empty: the server was started without PROMETHEUS_MULTIPROC_DIR.",
    "Not told apart: the scheduler's own work, image decoding and processing, tokenizing, and HTTP: they are in TTFT.",
)
FEW = 100
"""Requests below which a 99th percentile is nearly the largest value."""


def flat(row: ServeRow, plain: ServeRow | None) -> dict[str, CellValue]:
    """Return one row of the CSV: all numbers, unrounded; times as milliseconds.

    Args:
        row: the row.
        plain: that of the un-pruned server under the same load.
    """
    setup, measured = row.setup, row.measured
    ttft, tpot = ([float(p) for p in np.percentile(x, [50, 99])] for x in (measured.ttft, measured.tpot))
    spent = measured.spent
    return {
        "in flight": setup.concurrency,
        "series": setup.label,
        "prompt tokens": measured.prompt,
        "requests/s": measured.throughput,
        "x": None if plain is None else measured.throughput / plain.measured.throughput,
        "TTFT p50 ms": 1000 * ttft[0],
        "TTFT p99 ms": 1000 * ttft[1],
        "TPOT p50 ms": 1000 * tpot[0],
        "TPOT p99 ms": 1000 * tpot[1],
        **{f"{name} ms": measured.each(name) for name in ("queue", "prefill", "decode")},
        **{f"{name} ms": measured.per_image(name) for name in (TOWER, SELECTION)},
        **{f"{name} share": measured.share(name) for name in (TOWER, SELECTION)},
        "tokens per step": spent["step tokens"] / spent["steps"] if spent.get("steps") else None,
        "cached tokens": spent.get("cached tokens"),
        "preemptions": spent.get("preemptions"),
        "requests": len(measured.ttft),
        "new tokens": setup.new_tokens,
        "image side": setup.side if setup.short is None else None,
        "words": setup.words if setup.short is None else setup.short,
        "model": setup.model,
        "weights": setup.weights,
        "engine": setup.engine,
        "dtype": setup.dtype,
        "machine": setup.machine,
        "identity": row.identity,
    }


def cells(rows: Sequence[ServeRow]) -> list[dict[str, CellValue]]:
    """Return all rows of the CSV."""
    plain = {row.setup.load: row for row in rows if row.setup.series == "none"}
    return [flat(row, plain.get(row.setup.load)) for row in rows]


def to_csv(rows: Sequence[ServeRow]) -> str:
    """Return the rows as CSV."""
    lines = cells(rows)
    return tables.to_csv(list(lines[0]), lines)


def to_json(rows: Sequence[ServeRow]) -> str:
    """Return the rows as JSON: the CSV's columns, and what is stored, raw times included."""
    table = [{**flat, "row": row.model_dump(mode="json")} for flat, row in zip(cells(rows), rows, strict=True)]
    return strict_json({"rows": table}, indent=1) + "\n"


def texts(rows: Sequence[ServeRow]) -> tuple[list[str], list[list[str]]]:
    """Return columns and lines for people; columns without any value are left out."""
    lines = cells(rows)
    several = [name for name in VARYING if len({line[name] for line in lines} - {None}) > 1]
    shown = [*several, *(name for name in SHOWN if any(line[name] is not None for line in lines))]
    forms = [(name, SHOWN.get(name, "")) for name in shown]
    return shown, [["" if line[name] is None else format(line[name], form) for name, form in forms] for line in lines]


def to_table(rows: Sequence[ServeRow]) -> Table:
    """Build the table for a wide terminal."""
    columns, lines = texts(rows)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, justify="left" if name == "series" else "right")
    for line in lines:
        table.add_row(*line)
    return table


def notes(rows: Sequence[ServeRow]) -> list[str]:
    """Return the notes below the table."""
    found = list(NOTES)
    if (fewest := min(len(row.measured.ttft) for row in rows)) < FEW:
        found.append(f"p99 of {fewest} requests is nearly the largest value: give more --requests or --rounds.")
    if any(row.setup.device == "cpu" for row in rows):
        found.append(
            "Measured on a CPU: it shows that the measurement runs, and says nothing about served speed on a GPU."
        )
    if cached := max(row.measured.spent.get("cached tokens", 0.0) / sum(_prompts(row)) for row in rows):
        found.append(f"Prefix caches held at most {cached:.0%} of the prompts' tokens: what all prompts begin with.")
    if any(row.measured.spent.get("preemptions") for row in rows):
        found.append("Requests were preempted for lack of KV cache: lower --concurrency, or give servers more memory.")
    return found


def _prompts(row: ServeRow) -> list[float]:
    """Return the tokens of all prompts of a row."""
    return [row.measured.prompt] * len(row.measured.ttft)
