"""Measured tables of the mini suite: `python -m uniprune.benchmarks.mini.report`, after the runs that the page lists.

Writes docs/mini-suite.csv (one line per model, method and ratio) and docs/mini-suite.md (the same, readable); with
--methods docs/mini-suite-methods.csv and .md: every method, compared with random pruning; with --newer those of
docs/mini-suite-newer. With --model only the rows of
these models are replaced, with --method only those of these methods.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from uniprune.errors import UserError
from uniprune.results.records import RunRecord
from uniprune.results.remarks import row_notes
from uniprune.results.store import Store
from uniprune.utils.tables import to_csv

from .pages import COLUMNS, CURVES, METHODS, MODELS, NEWER_PAGE, Page
from .rows import INTRA, PRE, among_equal_budgets, of_equal_budget, rival, rows, scored, shown

CsvRows = Sequence[dict[str, str]]


def markdown(page: Page, table: CsvRows, notes: Sequence[str] = ()) -> str:
    """The readable page: one table per model, then the notes on its rows."""
    heads = [*COLUMNS, "average", *["minus random"] * page.compared]
    parts = [page.text]
    for model in page.models:
        parts.append(f"\n## {model}\n")
        parts.append("| " + " | ".join(heads) + " |")
        parts.append("|---" * 2 + "|---:" * (len(heads) - 2) + "|")
        for row in table:
            if row["model"] == model:
                cells = [*(row[column] for column in COLUMNS), f"{row['average']} ± {row[page.half_width]}"]
                parts.append("| " + " | ".join([*cells, *[_difference(row, table)] * page.compared]) + " |")
    parts += [f"\n{note}" for note in notes]
    return "\n".join(parts) + "\n"


def _difference(row: dict[str, str], table: CsvRows) -> str:
    """The last cell: bold where the interval excludes 0; random pruning's budget where that is another one."""
    random = rival(row, table)
    if random is not None and not of_equal_budget(row, random):
        return f"other budget: {random['visual tokens']}"
    if not row.get("random"):
        return ""
    sure = float(row["low"]) > 0 or float(row["high"]) < 0
    middle = f"**{row['random']}**" if sure else row["random"]
    return f"{middle} ({row['low']} to {row['high']})"


def stored(page: Page, docs: Path, models: Iterable[str]) -> tuple[list[dict[str, str]], list[str]]:
    """Return (rows of these models, notes of all) as the page in `docs` has them."""
    with (docs / f"{page.name}.csv").open(encoding="utf-8", newline="") as stream:
        kept = [row for row in csv.DictReader(stream) if row["model"] in models]
    after = (docs / f"{page.name}.md").read_text(encoding="utf-8").rpartition("|\n")[2]
    return kept, [line for line in after.splitlines() if line]


def with_methods(page: Page, docs: Path, records: Iterable[RunRecord], methods: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows in `docs` with those of `methods` added or replaced.

    Raises:
        UserError: a row is missing in the results, or the un-pruned model or random pruning have other numbers there
            than in the page: its rows would not be comparable.
    """
    (kept, _), blank = stored(page, docs, page.models), dict.fromkeys(page.columns, "")
    if unknown := set(methods) - set(page.methods):
        raise UserError(
            f"{', '.join(sorted(unknown))}: not among the methods of {page.name}; add them to the page first"
        )
    fresh = {_place(row): blank | row for row in rows(page, records)}
    own = {(model, method, f"{ratio:g}") for model in page.models for method in methods for ratio in page.ratios}
    basis = {_place(row): row for row in kept if methods and row["method"] in ("none", PRE, INTRA)}
    if lacking := sorted(" ".join(place) for place in {*own, *basis} - set(fresh)):
        raise UserError(f"the results have no complete run of {', '.join(lacking)}; run them first")
    if other := sorted(" ".join(place) for place, row in basis.items() if fresh[place] != row):
        raise UserError(
            f"the results have other numbers of {', '.join(other)} than {page.name}.csv, so that rows of both cannot "
            "be compared; run all methods of the page and leave --method out"
        )
    order = ("none", *page.methods)
    table = [row for row in kept if _place(row) not in own] + [fresh[place] for place in own]
    return sorted(table, key=lambda r: (page.models.index(r["model"]), order.index(r["method"]), -float(r["ratio"])))


def _place(row: dict[str, str]) -> tuple[str, str, str]:
    """Return what a row is about."""
    return row["model"], row["method"], row["ratio"]


def main() -> None:
    """Read the stored runs, write both files of a page, and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--results", type=Path, default=Path("results/mini-suite"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--methods", action="store_true", help="the table of every method instead of the curves")
    which.add_argument("--newer", action="store_true", help="the table of methods that were added later")
    parser.add_argument(
        "--method",
        nargs="*",
        help="add or replace rows of these methods, leave the others as they are; none: text only",
    )
    parser.add_argument("--model", nargs="+", choices=MODELS, help="replace their rows, leave the others as they are")
    args = parser.parse_args()
    if args.model and args.method is not None:
        parser.error("--model and --method replace other rows each; give one of them")
    page = METHODS if args.methods else NEWER_PAGE if args.newer else CURVES
    models = args.model or page.models
    records = [record for record in shown(page, Store(args.results).records()) if record.model.name in models]
    notes = row_notes((record, name) for record in records for name in scored(record))
    if args.method is not None:
        table = with_methods(page, args.docs, records, args.method)
        notes = list(dict.fromkeys([*stored(page, args.docs, page.models)[1], *notes]))
    else:
        table = rows(page, records)
    if args.model:
        if lacking := set(models) - {row["model"] for row in table}:
            raise UserError(f"{args.results} has no complete run of {', '.join(sorted(lacking))}; run it first")
        kept, others = stored(page, args.docs, set(page.models) - set(models))
        table = sorted([*kept, *table], key=lambda row: page.models.index(row["model"]))
        notes = list(dict.fromkeys([*others, *notes]))
    table = among_equal_budgets(table)
    (args.docs / f"{page.name}.csv").write_text(to_csv(page.columns, table), encoding="utf-8")
    (args.docs / f"{page.name}.md").write_text(markdown(page, table, notes), encoding="utf-8")
    sys.stdout.write(markdown(page, table, notes))


if __name__ == "__main__":
    main()
