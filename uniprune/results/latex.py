"""A leaderboard as a LaTeX table (booktabs): models, and in each the keep ratios, one below the other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from uniprune.results.table import BudgetCell, CellValue, ResultTable, RowsCell, WideCell, text

SPECIAL = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "…": r"\dots{}",
}
"""Characters that LaTeX reads otherwise."""
TELLING = ("protocol", "question", "layer", "seed", "settings")
"""Columns that are named with the method where rows of one method and ratio differ in them."""
MARKS = ("textbf", "underline")
"""Commands for the best and the second number of a budget group."""

Row = Mapping[str, CellValue]


@dataclass(frozen=True)
class Block:
    """Rows of one model and keep ratio.

    Attributes:
        model: the model.
        ratio: the ratio; None for the un-pruned model.
        rows: its rows.
    """

    model: str
    ratio: float | None
    rows: Sequence[Row]


def latex(board: ResultTable, columns: Collection[str], command: str = "") -> str:
    """Return a `tabular` of methods and benchmarks with average and relative score; it needs the package booktabs.

    The best number of a budget group, whose methods keep as many visual tokens as measured, is bold, the second is
    underlined; equal numbers as printed share a mark. What was scored on the first rows only is named below the table.

    Args:
        board: the leaderboard; notes become comments.
        columns: those to show, of benchmarks, average and relative score.
        command: the command that made it, for a comment.
    """
    numbers = [name for name in (*board.benchmarks, "average", "relative %") if name in columns]
    blocks = _blocks(board.rows)
    heads = ["Method", "Tokens", *numbers]
    width = len(heads)
    lines = [f"% {command}"] * bool(command)
    lines += ["% booktabs; bold: best, underlined: second of a budget group (methods with as many visual tokens)"]
    lines += [f"% {line}" for note in board.notes for line in note.splitlines()]
    lines += [f"\\begin{{tabular}}{{ll{'r' * len(numbers)}}}", "\\toprule"]
    lines += [_line([escaped({"average": "Avg.", "relative %": "Rel. %"}.get(head, head)) for head in heads])]
    models = [*dict.fromkeys(block.model for block in blocks)]
    marks = _marks(board.rows, numbers)
    for block in blocks:
        lines.append("\\midrule")
        ratio = "un-pruned" if block.ratio is None else f"keep ratio {100 * block.ratio:.4g} %"
        title = f"{block.model}, {ratio}" if len(models) > 1 else ratio
        lines.append(f"\\multicolumn{{{width}}}{{l}}{{\\emph{{{escaped(title)}}}}} \\\\")
        for row, label in zip(block.rows, _labels(block.rows), strict=True):
            cells = [_cell(name, row.get(name), marks.get((id(row), name))) for name in numbers]
            lines.append(_line([escaped(label), escaped(text("visual tokens", row.get("visual tokens"))), *cells]))
    lines.append("\\bottomrule")
    lines += [f"\\multicolumn{{{width}}}{{l}}{{\\footnotesize {escaped(note)}}} \\\\" for note in _conditions(board)]
    return "\n".join([*lines, "\\end{tabular}", ""])


def escaped(plain: str) -> str:
    """Return a text as LaTeX prints it."""
    return "".join(SPECIAL.get(letter, letter) for letter in plain)


def _line(cells: Sequence[str]) -> str:
    """Return one line of a tabular."""
    return " & ".join(cells) + r" \\"


def _blocks(rows: Sequence[Row]) -> list[Block]:
    """Return the rows by model, the un-pruned model first, then by ratio, the highest first."""
    found: dict[tuple[str, float | None], list[Row]] = {}
    for row in rows:
        given = row.get("ratio")
        ratio = float(given) if isinstance(given, float | int) and row.get("protocol") is not None else None
        found.setdefault((str(row["model"]), ratio), []).append(row)
    order = [*dict.fromkeys(model for model, _ in found)]
    keys = sorted(found, key=lambda key: (order.index(key[0]), key[1] is not None, -(key[1] or 0)))
    return [Block(model, ratio, found[model, ratio]) for model, ratio in keys]


def _labels(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the method of every row, with what rows of the same method differ in."""
    for row in rows:
        alike = [one for one in rows if one["method"] == row["method"]]
        telling = [name for name in TELLING if len({str(one.get(name)) for one in alike}) > 1]
        words = [f"{name}={row[name]}" for name in telling if row.get(name) is not None]
        name = str(row["model"] if row.get("protocol") is None else row["method"])
        yield name + f" ({', '.join(words)})" * bool(words)


def _marks(rows: Sequence[Row], numbers: Sequence[str]) -> dict[tuple[int, str], str]:
    """Return (row, column) -> the command of its mark; a group of one has none."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if isinstance(budget := row.get("budget group"), BudgetCell):
            groups.setdefault((str(row["model"]), budget.number), []).append(row)
    found: dict[tuple[int, str], str] = {}
    for members in groups.values():
        for name in numbers:
            printed = {id(row): _printed(row[name]) for row in members if row.get(name) is not None}
            if len(printed) < 2:
                continue
            best = sorted(set(printed.values()), key=float, reverse=True)
            found |= {
                (row, name): mark
                for mark, value in zip(MARKS, best, strict=False)
                for row, text in printed.items()
                if text == value
            }
    return found


def _printed(value: CellValue) -> str:
    """Return a number with one digit."""
    number = value.columns()[""] if isinstance(value, WideCell) else value
    return f"{number:.1f}" if isinstance(number, float | int) else str(number)


def _cell(name: str, value: CellValue, mark: str | None) -> str:
    """Return a number as LaTeX, with its mark and its spread over seeds."""
    if value is None:
        return "--"
    shown = f"\\{mark}{{{_printed(value)}}}" if mark else _printed(value)
    spread = value.columns().get(" std") if isinstance(value, WideCell) else None
    return shown + f" $\\pm$ {spread:.1f}" if isinstance(spread, float) else shown


def _conditions(board: ResultTable) -> list[str]:
    """Return what must stand with the numbers: runs of the first rows only."""
    limited = [(row, cell) for row in board.rows if isinstance(cell := row.get("rows"), RowsCell) and cell.limited]
    if not limited:
        return []
    which = (
        "All scores"
        if len(limited) == len(board.rows)
        else ", ".join(dict.fromkeys(str(r["method"]) for r, _ in limited))
    )
    return [f"{which}: the first rows only, {', '.join(dict.fromkeys(str(cell) for _, cell in limited))} rows."]
