"""A page of its own about one comparison: tables, pictures, what was run."""

from __future__ import annotations

import html
from collections.abc import Sequence

from uniprune.tuning.material import TuningData
from uniprune.tuning.pictures import planes, removed_tokens, trajectories
from uniprune.tuning.summary import Finished, SummaryTable


def page(
    name: str,
    runs: Sequence[Finished],
    shared: TuningData,
    tables: Sequence[tuple[str, SummaryTable | None]],
    lines: Sequence[str],
) -> str:
    """HTML without outside references."""
    kind_of = {sample.index: sample.kind for sample in shared.train if sample.kind}
    rows = {sample.index: sample for sample in shared.train}
    parts = [f"<h1>Tuning: {html.escape(name)}</h1>", _about(runs)]
    parts += [f"<p>{html.escape(line)}</p>" for line in lines]
    for title, table in tables:
        if table is not None:
            parts += [f"<h2>{title}</h2>", _table(table)]
    if (picture := trajectories(runs)) is not None:
        parts += ["<h2>Trajectories</h2>", f'<div class="wide">{picture}</div>']
    shown = [run for run in runs if run.record.choice.role in ("method", "variant")] or list(runs)
    seen: set[str] = set()
    for run in shown:
        if run.record.label in seen:
            continue
        seen.add(run.record.label)
        title = html.escape(f"{run.record.label}, seed {run.record.seed}")
        if run.record.choice.role != "variant" and (picture := planes(run.journal.steps, kind_of)) is not None:
            parts += [f"<h2>Error-uncertainty plane: {title}</h2>", _PLANE, f'<div class="wide">{picture}</div>']
        if (cases := removed_tokens(run.journal.steps, rows, shared.tokenizer)) is not None:
            parts += [f"<h2>Removed tokens: {title}</h2>", _TOKENS, cases]
    if shared.problems:
        parts += ["<h2>Rows left out or shortened</h2>"]
        parts += [f"<p>{html.escape(line)}</p>" for line in shared.problems]
    return _PAGE.format(name=html.escape(name), body="\n".join(parts))


def _about(runs: Sequence[Finished]) -> str:
    if not runs:
        return ""
    record = runs[0].record
    versions = ", ".join(f"{k} {v}" for k, v in record.environment.versions.items())
    s = record.settings
    text = (
        f"{len(runs)} runs. Keep ratios {s.sample_ratio:g} of the samples and {s.token_ratio:g} of the answer tokens "
        f"where tokens are removed ({s.removal}); {s.epochs} epochs, batch {s.batch} x {s.accumulation}, rate "
        f"{s.rate:g}, LoRA rank {s.rank}. {record.environment.device}, {record.environment.threads} threads; "
        f"{versions}."
    )
    return f'<p class="note">{html.escape(text)}</p>'


def _table(table: SummaryTable) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>\n"

    body = line(table.columns, "th") + "".join(line(row, "td") for row in table.rows)
    return f'<div class="wide"><table>{body}</table></div>'


_PLANE = (
    '<p class="note">Every sample as often as it was seen. Filled: kept. Quadrants are relative to the batch of the '
    "moment, so their borders move from batch to batch.</p>"
)
_TOKENS = (
    '<p class="note">Grey: prompt. <span class="gone">Struck out</span>: removed from the training sequence. '
    '<span class="kept">Green</span>: trained on.</p>'
)
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Tuning: {name}</title>
<style>
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em; color: #222; }}
h2 {{ margin-top: 2em; font-size: 1.15em; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 4px 10px; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }}
th {{ border-bottom: 2px solid #333; white-space: normal; vertical-align: bottom; }}
th:first-child, td:first-child {{ text-align: left; }}
.wide {{ overflow-x: auto; }}
.wide svg {{ max-width: 100%; height: auto; }}
.note {{ color: #555; }}
.case {{ margin: 0.6em 0; }}
.prompt {{ color: #888; }}
.kept {{ background: #dff3e3; }}
.gone {{ background: #fbdcdc; color: #a01818; text-decoration: line-through; }}
</style>
{body}
</html>
"""
