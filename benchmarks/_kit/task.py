"""Description of a dataset that is loaded, prompted and scored through VLMEvalKit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from .faults import Row
from .golds import Gold
from .items import Credits, Evaluation

if TYPE_CHECKING:
    from .boot import Kit

COMMON = ("hint", *ascii_uppercase, "category", "l2-category", "split")
"""Columns of prompts and reports that any dataset may have."""


@dataclass(frozen=True)
class Grouping:
    """Rows that are scored together: those that any part of the headline joins, so that none is scored without all.

    Attributes:
        key: label that the rows of a group share; it raises ValueError for a faulty row that names none.
        fault: fault of a complete group, or None.
        head: whether the kit files the group under this row; the first such row is the group's.
    """

    key: Callable[[Row], str]
    fault: Callable[[Sequence[Row]], str | None] = lambda rows: None
    head: Callable[[Row], bool] = lambda row: True


@dataclass(frozen=True)
class Judging:
    """Judging of a dataset that VLMEvalKit does not score by matching alone.

    Attributes:
        prompt: the kit's function from a row with its prediction to the judge's prompt.
        rule: the rule judge's reply to that prompt.
        refuses: parts of a row that the rule cannot judge.
        max_tokens: longest reply of a judge model, as in the kit.
        system: message that goes before every prompt to a judge model, as in the kit; empty for none.
    """

    prompt: Callable[[Kit], Callable[[Any], str]]
    rule: Callable[[Row], str]
    refuses: Callable[[Row], list[str]] = lambda row: []
    max_tokens: int = 128
    system: str = ""


@dataclass(frozen=True)
class Task:
    """One VLMEvalKit dataset.

    Attributes:
        kit_name: the kit's name of it; decides prompts, scoring and the official file's name and md5.
        rows: rows of the official file that are used.
        module: module of `vlmeval.dataset` with the class `cls`.
        cls: the kit's class.
        ability: ability group of UniPruneBench.
        metric: name of the headline number.
        summary: one line for listings.
        columns: columns that must exist and be filled in every row.
        credits: per-item credit from the kit's result files; the headline follows from it.
        suite: the `--suite` that contains it.
        rows_known: whether `rows` is documented rather than estimated.
        all_or_none: columns that, if filled in one row, must be filled in every row.
        literals: columns the kit evaluates as Python lists.
        allowed: column -> the only values the kit can score.
        fault: any other fault of a row, or None.
        gold: the right answers, and what an answer is worth; None if a row has none.
        optional: further columns the kit reads, empty where a file has none; all others it might take for its own.
        labels: cells that the kit tells rows apart by, from a row, its position, and that of its group's head.
        name: name of a row: its index, unless the kit renames rows while it reads them.
        loaded: the rows as the kit reads them, from those of the file and the class's own function, which reads a file.
        grouping: rows scored together.
        images_named: number of images that a row's text names.
        split: the only value of the column `split` that is used; None for all.
        judging: how it is judged; None if exact matching is enough.
        note: what is shown with every score of exact matching.
        max_new_tokens: longest answer, in tokens.
        question_shown: whether the question is in the image, so that methods read the prompt's text in its place.
        video: path of a row's video from the folder of the data file; None where rows have images.
    """

    kit_name: str
    rows: int
    module: str
    cls: str
    ability: str
    metric: str
    summary: str
    columns: tuple[str, ...]
    credits: Callable[[Evaluation], Credits]
    suite: str = "ten"
    rows_known: bool = True
    all_or_none: tuple[str, ...] = ()
    literals: tuple[str, ...] = ()
    allowed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    fault: Callable[[Row], str | None] = lambda row: None
    gold: Gold | None = None
    optional: tuple[str, ...] = ()
    labels: Callable[[Row, int, int], Mapping[str, object]] = lambda row, place, head: {"index": place}
    name: Callable[[Row], str] = lambda row: str(row["index"])
    loaded: Callable[[Kit, Any, Callable[[str], Any]], Any] = lambda kit, rows, read: rows
    grouping: Grouping | None = None
    images_named: Callable[[Row], int] = lambda row: 0
    split: str | None = None
    judging: Judging | None = None
    note: str = ""
    max_new_tokens: int = 128
    question_shown: bool = False
    video: Callable[[Row], str] | None = None

    @property
    def cells(self) -> frozenset[str]:
        """Return the columns that the kit gets, images aside."""
        return frozenset((*self.columns, *COMMON, *self.optional)) - {"image"}

    @property
    def judge(self) -> bool:
        """Return whether it cannot be scored without a judge."""
        return self.judging is not None
