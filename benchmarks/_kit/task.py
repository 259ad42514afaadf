"""What must be known of a dataset to load, ask and score it through VLMEvalKit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .faults import Row
from .items import Credits, Evaluation

if TYPE_CHECKING:
    from .boot import Kit


@dataclass(frozen=True)
class Grouping:
    """Rows that are scored together.

    Attributes:
        key: what the rows of a group share. fault: what keeps a complete group from being scored, or None.
    """

    key: Callable[[Row], str]
    fault: Callable[[Sequence[Row]], str | None]


@dataclass(frozen=True)
class Judging:
    """How a dataset that VLMEvalKit does not score by matching alone is judged.

    Attributes:
        prompt: the kit's function from a row with its prediction to the judge's prompt.
        rule: the rule judge's reply to that prompt. refuses: parts of a row that it cannot judge.
        max_tokens: longest reply of a judge model, as in the kit.
    """

    prompt: Callable[[Kit], Callable[[Any], str]]
    rule: Callable[[Row], str]
    refuses: Callable[[Row], list[str]] = lambda row: []
    max_tokens: int = 128


@dataclass(frozen=True)
class Task:
    """One VLMEvalKit dataset.

    Attributes:
        kit_name: the kit's name of it; decides prompts, scoring and the official file's name and md5.
        rows: rows of the official file that are asked. rows_known: whether that is documented rather than estimated.
        suite: which `--suite` it belongs to.
        module: module of `vlmeval.dataset` with the class `cls`.
        ability: ability group of UniPruneBench. metric: name of the headline number. summary: one line for listings.
        columns: must be there and filled in every row. all_or_none: if filled in one row, then in every row.
        literals: columns the kit evaluates as Python lists.
        allowed: column -> the only values the kit can score.
        fault: what else is wrong with a row, or None. grouping: rows scored together.
        linked: what rows share that the headline joins, though they are not left out together; None for nothing.
        pictures: how many pictures a row's text names. split: the only value of the column `split` that is asked.
        headline: the kit's result -> 0–100. credits: per-item credit from the kit's result files.
        judging: how it is judged; None where exact matching is enough.
        max_new_tokens: longest answer, in tokens.
    """

    kit_name: str
    rows: int
    module: str
    cls: str
    ability: str
    metric: str
    summary: str
    columns: tuple[str, ...]
    headline: Callable[[Evaluation], float]
    credits: Callable[[Evaluation], Credits]
    suite: str = "ten"
    rows_known: bool = True
    all_or_none: tuple[str, ...] = ()
    literals: tuple[str, ...] = ()
    allowed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    fault: Callable[[Row], str | None] = lambda row: None
    grouping: Grouping | None = None
    linked: Callable[[Row], str] | None = None
    pictures: Callable[[Row], int] = lambda row: 0
    split: str | None = None
    judging: Judging | None = None
    max_new_tokens: int = 128

    @property
    def judge(self) -> bool:
        """Whether it cannot be scored without a judge."""
        return self.judging is not None
