"""Rows and columns of a leaderboard that a reader chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from math import isclose

from uniprune.errors import UserError, unknown
from uniprune.results.comparison import SeedGroup
from uniprune.results.leaderboard import Leaderboard
from uniprune.results.table import CellValue, ResultTable, WideCell

ALL = "all"
"""Word for every column."""


@dataclass(frozen=True)
class Selection:
    """A choice of rows and columns.

    Attributes:
        models: patterns of models; empty for all.
        methods: patterns of methods; empty for all.
        ratios: keep ratios, to three digits; empty for all. The un-pruned model is kept.
        columns: patterns of columns in their order, or "all"; empty for the usual ones.
        sort: column to sort by, the highest number first, or "-column" for the lowest; empty for the usual order.
    """

    models: Sequence[str] = ()
    methods: Sequence[str] = ()
    ratios: Sequence[float] = ()
    columns: Sequence[str] = ()
    sort: str = ""

    def rows(self, board: Leaderboard) -> Leaderboard:
        """Return the leaderboard of the chosen rows: ranks are among them, all others still serve as baselines.

        Raises:
            UserError: a pattern or ratio means no row.
        """
        groups = board.groups
        for option, patterns, name in (("model", self.models, _model), ("method", self.methods, _method)):
            names = [*dict.fromkeys(map(name, groups))]
            for pattern in patterns:
                if not any(fnmatch(one, pattern) for one in names):
                    raise unknown(f"--{option}", pattern, names)
        ratios = sorted({group.setup.ratio for group in groups if _pruned(group)})
        for ratio in self.ratios:
            if not any(_close(ratio, one) for one in ratios):
                raise UserError(f"no run has --ratio {ratio:g}; there are {', '.join(f'{one:g}' for one in ratios)}")
        chosen = [group for group in groups if self._chosen(group)]
        if len(chosen) == len(groups):
            return board
        if not chosen:
            raise UserError("no run has the chosen --model, --method and --ratio together; leave one of them out")
        shown = board.only({run.identity for group in chosen for run in group.runs})
        note = f"{len(chosen)} of {len(groups)} rows are shown (--model, --method, --ratio); ranks are among them."
        return _with_note(shown, note)

    def table(self, board: ResultTable, usual: Sequence[str] = ()) -> ResultTable:
        """Return the chosen columns in the chosen order.

        Args:
            board: the table.
            usual: columns where none are chosen; empty for all.

        Raises:
            UserError: a pattern means no column.
        """
        names = [*board.columns]
        if self.columns and ALL not in self.columns:
            names = []
            for pattern in self.columns:
                matching = [name for name in board.columns if fnmatch(name, pattern)]
                if not matching:
                    raise unknown("column", pattern, board.columns)
                names += [name for name in matching if name not in names]
        elif usual and not self.columns:
            names = [name for name in names if name in usual]
        rows = self._sorted(board)
        return ChosenTable(
            columns=names,
            rows=[{name: row[name] for name in names if name in row} for row in rows],
            notes=board.notes,
            benchmarks=[name for name in board.benchmarks if name in names],
            details=[name for name in board.details if name in names and not self.columns],
            parted=set() if self.sort else board.apart(),
        )

    def sorted(self, board: ResultTable) -> ResultTable:
        """Return all columns of the rows in the chosen order."""
        return Selection(sort=self.sort).table(board)

    def _sorted(self, board: ResultTable) -> list[dict[str, CellValue]]:
        """Return the rows in the chosen order."""
        column = self.sort.removeprefix("-")
        if not column:
            return [*board.rows]
        if column not in board.columns:
            raise unknown("column", column, board.columns)
        return sorted(board.rows, key=lambda row: _key(row.get(column), lowest=self.sort.startswith("-")))

    def _chosen(self, group: SeedGroup) -> bool:
        """Check whether a row is chosen."""
        ratio = not self.ratios or not _pruned(group) or any(_close(group.setup.ratio, one) for one in self.ratios)
        model = not self.models or any(fnmatch(_model(group), pattern) for pattern in self.models)
        return ratio and model and (not self.methods or any(fnmatch(_method(group), one) for one in self.methods))


@dataclass(frozen=True)
class ChosenTable(ResultTable):
    """A table of chosen columns, which may lack those that part its rows.

    Attributes:
        parted: places of rows that an empty line precedes.
    """

    parted: set[int] = field(default_factory=set, kw_only=True)

    def apart(self) -> set[int]:
        """Return the places of rows that begin another budget group, or model, than the row before them."""
        return self.parted


def plain_rows(board: ResultTable) -> list[dict[str, object]]:
    """Return rows for JSON: numbers unrounded, a cell of several numbers as an object with the main one as "value"."""
    return [{name: _plain(row.get(name)) for name in board.columns} for row in board.rows]


def _plain(value: CellValue) -> object:
    """Return a cell as plain values."""
    if not isinstance(value, WideCell):
        return value
    return {suffix.strip() or "value": number for suffix, number in value.columns().items()}


def _with_note(board: Leaderboard, note: str) -> Leaderboard:
    """Return a leaderboard with a note at its beginning."""
    return replace(board, notes=(note, *board.notes))


def _key(value: CellValue, lowest: bool) -> tuple[bool, float, str]:
    """Return a key that sorts numbers from the highest, texts by letters, and missing values last."""
    number = value.columns()[""] if isinstance(value, WideCell) else value
    if isinstance(number, float | int):
        return False, number if lowest else -number, ""
    return number is None, 0.0, str(number)


def _close(one: float, other: float) -> bool:
    """Check whether two ratios agree in three digits: 0.111 means 0.11111, too."""
    return isclose(one, other, rel_tol=5e-3)


def _pruned(group: SeedGroup) -> bool:
    """Check whether a group is one of a method."""
    return group.setup.method.kind != "none"


def _model(group: SeedGroup) -> str:
    """Return the model of a group."""
    return group.runs[0].model.name


def _method(group: SeedGroup) -> str:
    """Return the method of a group."""
    return group.setup.method.name
