"""Terminal table, CSV and JSON of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from uniprune.latency.busy import ELSEWHERE, UNKNOWN
from uniprune.latency.rows import LAUNCH_BOUND, WATCHED, BenchRow, BenchSetup
from uniprune.results.spans import TIMES
from uniprune.utils import tables
from uniprune.utils.json_text import to_json as strict_json
from uniprune.utils.terminal import Column, show_table

CellValue = str | float | int | None

SHOWN = (
    *("model", "method", "ratio", "batch", "tokens", "kept", "vision ms", "projector ms", "method ms", "prefill ms"),
    *("TTFT ms", "TPOT ms", "total ms", "peak MB", "KV MB", "TFLOPs", "net x", "of ceiling", "prefill x"),
    *("of ceiling ", "TTFT x", "of ceiling  ", "graphs ms", "graphs net x", "of ceiling   ", "busy ms", "launch-bound"),
    *("floor ms", "problem"),
)
"""Columns of the terminal table; blanks keep equal headings apart."""
KEYS = range(SHOWN.index("kept"))
"""Places of the columns that name a row."""
METHOD = SHOWN.index("method")
"""Place of the one that always does."""
NOTES = (
    "Medians [IQR] of whole batches; tokens, KV and TFLOPs of one prompt; kept: mean over layers.",
    "x: speed-up against the un-pruned model, measured in turn with it. net: its prefill / (prefill + method), what "
    "pruning pays. of ceiling: what FLOPs alone would allow, for the language model (net, prefill) and with tower and "
    "projector (TTFT).",
    "floor: reading the language model's weights once at the copy bandwidth measured with the row.",
)

BUSY = (
    "busy: milliseconds in which the GPU worked for tower/method/prefill, by torch.profiler in calls of their own. "
    f"launch-bound: it worked for less than {LAUNCH_BOUND:.0%} of that span and else waited for the host to start its "
    "kernels, so fewer tokens save little."
)
"""Note on busy times."""
GRAPHS = (
    "graphs: prefill of decoder layers, final norm and output head as CUDA graphs, one per stretch between stages; "
    "copies of their inputs are in it, embeddings, rotary tables and masks are not. Their net: un-pruned graphs / "
    "(graphs + method)."
)
"""Note on prefills as CUDA graphs."""


def flat(row: BenchRow) -> dict[str, CellValue]:
    """Return one row of the CSV: all numbers, unrounded; seconds as milliseconds."""
    setup, measured = row.setup, row.measured
    cells: dict[str, CellValue] = {
        "model": setup.model,
        "method": setup.method.name,
        "ratio": setup.ratio,
        "protocol": setup.protocol,
        "settings": " ".join(f"{name}={value}" for name, value in setup.method.passed.items()),
        "batch": setup.batch,
        "visual tokens": setup.visual,
        "text tokens": setup.text,
        "new tokens": setup.new_tokens,
        "repeats": setup.repeats,
        "weights": setup.weights,
        "dtype": setup.dtype,
        "attention": setup.attention,
        "tower attention": setup.tower_attention or setup.attention,
        "device": setup.environment.device,
        "kept tokens": sum(measured.layers) / len(measured.layers) if measured else None,
    }
    for span in TIMES:
        known = measured is not None and span in measured.seconds
        cells[f"{span} ms"] = 1000 * measured.median(span) if known and measured else None
        cells[f"{span} iqr ms"] = 1000 * measured.iqr(span) if known and measured else None
    busy = (measured.busy if measured else None) or {}
    for span in (*WATCHED, "projector", ELSEWHERE, UNKNOWN):
        cells[f"{span} busy ms"] = 1000 * busy.get(span, 0.0) if busy else None
    cells["launch-bound"] = ", ".join(f"{span} {share:.0%}" for span, share in row.launch_bound.items()) or None
    for part in ("vision", "projector", "llm", "total"):
        cells[f"{part} TFLOPs"] = getattr(measured.flops, part) / 1e12 if measured else None
    graphs = row.graphs.seconds if row.graphs else []
    cells["graphs ms"] = 1000 * float(np.median(graphs)) if graphs else None
    cells["graphs iqr ms"] = 1000 * float(np.subtract(*np.percentile(graphs, [75, 25]))) if graphs else None
    cells["graph segments"] = row.graphs.segments if graphs and row.graphs else None
    for part in ("graphs", "net graphs"):
        for name in ("speed-up", "ceiling", "achieved"):
            cells[f"{part} {name}"] = row.graph_speedups.get(f"{part} {name}")
    kept, peak = (measured.kv_bytes, measured.peak_bytes) if measured else (None, None)
    cells["KV MB"] = None if kept is None else kept / 1e6
    cells["peak MB"] = None if peak is None else peak / 1e6
    for part in ("net", "prefill", "ttft", "total"):
        for name in ("speed-up", "ceiling", "achieved"):
            if part != "total" or name == "speed-up":
                cells[f"{part} {name}"] = row.speedups.get(f"{part} {name}")
    cells["weight-read floor ms"] = None if row.floor is None else 1000 * row.floor
    cells["copy GB/s"] = None if row.bandwidth is None else row.bandwidth / 1e9
    cells["never tried"] = row.untried
    cells["error"] = row.error
    cells["identity"] = row.identity
    return cells


def to_csv(rows: Sequence[BenchRow]) -> str:
    """Format rows as comma-separated values."""
    lines = [flat(row) for row in rows]
    return tables.to_csv(list(lines[0]), lines)


def to_json(rows: Sequence[BenchRow]) -> str:
    """Format rows as JSON: the CSV's columns, raw times and environments."""
    table: list[dict[str, Any]] = [{**flat(row), "row": row.model_dump(mode="json")} for row in rows]
    environments = {row.setup.environment.model_dump_json(): row.setup.environment for row in rows}
    stamps = [environment.model_dump(mode="json") for environment in environments.values()]
    return strict_json({"environments": stamps, "rows": table}, indent=1) + "\n"


def show(rows: Sequence[BenchRow]) -> None:
    """Print the table; columns without any value are left out.

    A terminal too narrow for it gets it in parts, each with the columns that rows differ in by their settings.
    """
    lines = [_shown(row) for row in rows]
    several = [i for i in KEYS if i == METHOD or len({line[i] for line in lines}) > 1]
    others = [i for i in range(len(SHOWN)) if i not in several and any(line[i] for line in lines)]
    order = [*several, *others]
    heads = [Column(SHOWN[i].strip(), right=i > METHOD and SHOWN[i] != "problem") for i in order]
    show_table(heads, [[line[i] for i in order] for line in lines], keys=len(several))


def notes(rows: Iterable[BenchRow]) -> list[str]:
    """Return the notes below the table: meaning of the columns, spread of equal prefills, untried models, failures."""
    rows = list(rows)
    long = [_too_long(row.setup, row.measured.context) for row in rows if row.measured and row.measured.context]
    untried = [f"{row.setup.model}: {row.untried}." for row in rows if row.untried]
    moved = [f"{row.setup.method.name} {note}." for row in rows if (note := row.setup.method.move_note)]
    failed = (_problem(row) for row in rows if row.error)
    machines = dict.fromkeys(row.setup.environment.device for row in rows if row.measured)
    return [
        *[f"Measured on {', '.join(machines)}."] * bool(machines),
        *NOTES,
        *_busy_notes(rows),
        *_graph_notes(rows),
        *spreads(rows),
        *dict.fromkeys([*untried, *moved, *long, *failed]),
    ]


def _busy_notes(rows: Sequence[BenchRow]) -> Iterator[str]:
    """Yield the meaning of the GPU's busy times, or the reason for their absence."""
    timed = [row for row in rows if row.measured is not None]
    if any(row.measured.busy for row in timed if row.measured):
        yield BUSY
    if any(row.setup.device == "cpu" for row in timed):
        yield "No GPU, no busy times: on a CPU every span is work."
    for row in timed:
        busy = row.measured.busy if row.measured else None
        where = f"{row.setup.model}, {row.setup.label}, batch {row.setup.batch}, {row.setup.visual} tokens"
        if busy is None and row.setup.device != "cpu":
            yield f"{where}: no busy times, torch.profiler saw no kernel or did not fit into memory."
        elif busy and busy.get(UNKNOWN, 0.0) > 0.01 * sum(busy.values()):
            yield f"{where}: {1000 * busy[UNKNOWN]:.3g} ms of the GPU's work has no known span, and is in no busy time."


def _graph_notes(rows: Sequence[BenchRow]) -> Iterator[str]:
    """Yield the meaning of prefills as CUDA graphs, and the reasons for their absence."""
    timed = [row for row in rows if row.graphs is not None]
    if timed:
        yield GRAPHS
    if any(row.setup.device == "cpu" for row in timed):
        yield "On a CPU plain calls take the place of graphs: the same work, nothing saved."
    for row in timed:
        if row.graphs and row.graphs.refusal:
            where = f"{row.setup.model}, {row.setup.label}, batch {row.setup.batch}, {row.setup.visual} tokens"
            yield f"{where}: no graphs, {row.graphs.refusal}."


def spreads(rows: Iterable[BenchRow]) -> list[str]:
    """Report the spread of prefill times among methods with equal token counts in every layer; it should be zero.

    Only rows that were measured in turn, and so share the un-pruned model's row, are compared.
    """

    def alike(row: BenchRow) -> tuple[str, int, int, str, list[float]]:
        setup, reference = row.setup, row.vanilla.model_dump_json() if row.vanilla else ""
        return setup.model, setup.visual, setup.batch, reference, row.measured.layers if row.measured else []

    found = []
    for (model, visual, batch, *_), group in groupby(sorted((r for r in rows if r.measured), key=alike), alike):
        times = {row.setup.label: row.measured.median("prefill") for row in group if row.measured}
        if len(times) > 1:
            spread = max(times.values()) / min(times.values()) - 1
            found.append(
                f"Equal tokens in every layer: prefills of {', '.join(times)} differ by {spread:.1%} ({model}, batch "
                f"{batch}, {visual} tokens)."
            )
    return found


def _too_long(setup: BenchSetup, context: int) -> str:
    """Return what to know of a prompt longer than the model's context."""
    return (
        f"{setup.model}: prompts of {setup.visual} visual tokens are longer than its context of {context} positions: "
        "it computes them, in these times, but was not made to answer them."
    )


def _problem(row: BenchRow) -> str:
    """Return the reason why a row has no numbers."""
    setup = row.setup
    return f"{setup.model}, {setup.label}, batch {setup.batch}, {setup.visual} tokens: {row.error}"


def _shown(row: BenchRow) -> list[str]:
    """Return the cells of `SHOWN`."""
    cells = flat(row)
    busy = cells["prefill busy ms"] is not None

    def time(span: str) -> str:
        median, iqr = cells[f"{span} ms"], cells[f"{span} iqr ms"]
        return "" if median is None else f"{median:.4g} [{iqr:.2g}]"

    def number(name: str, form: str = ".4g") -> str:
        value = cells[name]
        return "" if value is None else format(value, form)

    return [
        *(str(cells["model"]), str(cells["method"]), number("ratio", ".3g"), number("batch")),
        *(number("visual tokens", "d"), number("kept tokens", ".1f")),
        *map(time, ("vision", "projector", "method", "prefill", "ttft", "tpot", "total")),
        *(number("peak MB", ".0f"), number("KV MB", ".3g"), number("total TFLOPs", ".3g")),
        *(
            text
            for part in ("net", "prefill", "ttft")
            for text in (number(f"{part} speed-up", ".2f"), _share(cells, part))
        ),
        *(time("graphs"), number("net graphs speed-up", ".2f"), _share(cells, "net graphs")),
        *(
            "/".join(number(f"{span} busy ms", ".3g") for span in WATCHED) if busy else "",
            str(cells["launch-bound"] or ""),
        ),
        *(number("weight-read floor ms", ".3g"), "see below" if row.error else ""),
    ]


def _share(cells: dict[str, CellValue], span: str) -> str:
    """Format the achieved share and its ceiling."""
    achieved, ceiling = cells[f"{span} achieved"], cells[f"{span} ceiling"]
    if achieved is None or ceiling is None:
        return ""
    return f"{float(achieved):.0%} of {float(ceiling):.2f}"
