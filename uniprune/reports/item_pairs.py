"""Two stored runs item by item: which items they score differently, what they answered, and the paired test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniprune.errors import UserError
from uniprune.evaluation.collection import DatasetCollection
from uniprune.evaluation.dataset import Request
from uniprune.registry import BENCHMARKS
from uniprune.results.comparison import rows_key
from uniprune.results.fidelity import AnswerFiles
from uniprune.results.predictions import prediction_lines
from uniprune.results.records import DatasetRecord, RunRecord, ScoreRecord
from uniprune.results.statistics import Comparison, paired, resample


@dataclass(frozen=True)
class StoredRun:
    """A run with the place of its predictions.

    Attributes:
        record: the run.
        stored: folder or folders that have it.
        label: its name in tables and messages.
    """

    record: RunRecord
    stored: AnswerFiles
    label: str

    def answers(self, benchmark: str) -> dict[str, str]:
        """Return row -> predicted text of the rows that could be asked."""
        lines = prediction_lines(self.stored.answers(self.record.identity, benchmark)).read()
        return {one.index: one.prediction for one in lines if one.error is None}


@dataclass(frozen=True)
class ItemRow:
    """One row of an item.

    Attributes:
        index: the row.
        question: its question; empty if the benchmark's file is not at hand.
        expected: its expected answer; empty as well if the benchmark does not give it.
        first: answer of the first run; None if it has none.
        second: answer of the second run.
        request: the row as the benchmark gives it; None without its file.
    """

    index: str
    question: str
    expected: str
    first: str | None
    second: str | None
    request: Request | None = None


@dataclass(frozen=True)
class ItemPair:
    """One item as two runs answered it.

    Attributes:
        benchmark: the benchmark.
        item: its name in the score: a row, or the first row of those that are scored together.
        first: credit of the first run, 0 to 1.
        second: credit of the second run.
        rows: its rows, at least one.
    """

    benchmark: str
    item: str
    first: float
    second: float
    rows: tuple[ItemRow, ...]

    @property
    def texts_differ(self) -> bool:
        """True if the answers to any row differ."""
        return any(row.first != row.second for row in self.rows)


FILTERS: Mapping[str, Callable[[ItemPair], bool]] = {
    "differ": lambda pair: pair.first != pair.second,
    "a-right": lambda pair: pair.first > pair.second,
    "b-right": lambda pair: pair.first < pair.second,
    "both-wrong": lambda pair: pair.first == pair.second == 0,
    "answers": lambda pair: pair.texts_differ,
    "all": lambda pair: True,
}
"""Items that can be shown: of other credits, with a higher credit of one run, without credit, of other answers."""


@dataclass(frozen=True)
class BenchmarkPair:
    """One benchmark of two runs.

    Attributes:
        name: the benchmark.
        scores: headline scores of both runs.
        items: the items with a credit in both, in the order of the first run.
        test: paired test of first minus second; None without enough images, or of different rows or scoring.
        remark: why there is no test, or which items are left out; empty without a reason.
        rows: rows that each of them is scored on.
    """

    name: str
    scores: tuple[float, float]
    items: tuple[ItemPair, ...]
    test: Comparison | None
    remark: str
    rows: tuple[int, int]

    def count(self, name: str) -> int:
        """Count the items of a filter."""
        return sum(map(FILTERS[name], self.items))


def compare_runs(
    first: StoredRun, second: StoredRun, benchmarks: Sequence[str] | None, data_dir: Path
) -> tuple[list[BenchmarkPair], list[str]]:
    """Compare two runs on the benchmarks that both have scored.

    Args:
        first: run A.
        second: run B.
        benchmarks: those to compare; None for all.
        data_dir: folder of the benchmarks' files, which have the questions.

    Returns:
        The benchmarks, and notes: what only one of them has, and why questions are missing.

    Raises:
        UserError: one of them has no score of a requested benchmark.
    """
    scored = [
        {name: entry for name, entry in one.record.datasets.items() if entry.score is not None}
        for one in (first, second)
    ]
    both = [name for name in scored[0] if name in scored[1]]
    for name in benchmarks or ():
        if name not in both:
            raise UserError(f"{name!r} is not scored in both runs; both have {', '.join(both) or 'none'}")
    notes = [
        f"only {side} has a score of {', '.join(alone)}: not compared"
        for side, own in zip("AB", scored, strict=True)
        if (alone := [name for name in own if name not in both])
    ]
    if not both:
        notes.append("no benchmark is scored in both")
    data, found = DatasetCollection(data_dir), []
    for name in benchmarks or both:
        requests, missing = read_requests(data, name, scored[0][name].data, first.record.setup.limit)
        notes += [missing] * bool(missing)
        found.append(_benchmark(name, first, second, requests))
    return found, notes


def setup_differences(first: RunRecord, second: RunRecord) -> list[str]:
    """Return the settings in which two runs differ, in words."""
    one, other = (_settings(record) for record in (first, second))
    if one["method"] != other["method"]:  # their sources differ, of course
        del one["source of the method"]
    return [f"{name}: {_brief(value)} | {_brief(other[name])}" for name, value in one.items() if value != other[name]]


def _settings(record: RunRecord) -> dict[str, object]:
    """Return the settings of a run by name."""
    method = record.setup.method
    words = {"method": method.spelled_out, "source of the method": method.code}
    return {**words, **record.setup.model_dump(mode="json", exclude={"method"})}


def _brief(value: object) -> str:
    """Return a setting in at most 60 characters."""
    text = str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def read_requests(
    data: DatasetCollection, name: str, fingerprint: str, limit: int | None = None
) -> tuple[dict[str, Request], str]:
    """Return the rows of a benchmark by index, or the reason why they are not at hand.

    Args:
        data: the benchmarks.
        name: of the benchmark.
        fingerprint: of the file that was answered.
        limit: as in `RunOptions`.
    """
    if name not in BENCHMARKS.names():
        return {}, f"{name}: no questions, it is registered by a plugin (--plugin FILE)"
    try:
        dataset = data.get(name)
    except UserError as error:
        return {}, f"{name}: no questions: {error}"
    if dataset.fingerprint != fingerprint:
        return {}, f"{name}: no questions, the file in --data-dir is not the one that was answered"
    return {request.index: request for request in dataset.requests(limit)}, ""


def _benchmark(name: str, first: StoredRun, second: StoredRun, requests: Mapping[str, Request]) -> BenchmarkPair:
    """Compare two runs on one benchmark, of which both have a score."""
    entries = [one.record.datasets[name] for one in (first, second)]
    one, other = scores = [entry.score for entry in entries if entry.score is not None]
    mine, theirs = first.answers(name), second.answers(name)
    groups: dict[str, list[str]] = {}
    for request in requests.values():
        if request.group:
            groups.setdefault(request.group, []).append(request.index)

    def row(index: str) -> ItemRow:
        request = requests.get(index)
        expected = request.answer if request else ""
        return ItemRow(index, _question(request), expected, mine.get(index), theirs.get(index), request)

    def rows(item: str) -> tuple[ItemRow, ...]:
        together = groups.get(item, [item])
        alone = any(index in one.per_item for index in together if index != item)
        return tuple(map(row, [item] if alone else together))

    shared = [item for item in one.per_item if item in other.per_item]
    items = tuple(ItemPair(name, item, one.per_item[item], other.per_item[item], rows(item)) for item in shared)
    remark = _unlike(entries, scores)
    estimates = [] if remark else resample(scores, name)
    test = paired(estimates[0].moved(one.value) - estimates[1].moved(other.value)) if estimates else None
    if test is None and not remark:
        remark = "too few images for an interval and a test"
    return BenchmarkPair(name, (one.value, other.value), items, test, remark, (one.rows, other.rows))


def _question(request: Request | None) -> str:
    """Return the question of a row with its options; empty if it is not known."""
    if request is None:
        return ""
    options = request.raw.options if request.raw else {}
    return " ".join([request.question, *(f"({letter}) {text}" for letter, text in options.items())])


def _unlike(entries: Sequence[DatasetRecord], scores: Sequence[ScoreRecord]) -> str:
    """Return why two scores are not of the same questions, so that they are not tested; empty if they are."""
    (first, second), (one, other) = entries, scores
    if first.data != second.data:
        return "the data files differ"
    if first.prompts != second.prompts:
        return "the rows or the prompts differ"
    if (one.judge, one.scorer) != (other.judge, other.scorer):
        return f"judge or scorer differ: {one.judge} {one.scorer}, {other.judge} {other.scorer}"
    if rows_key(first) != rows_key(second) or set(one.per_item) != set(other.per_item):
        return "different rows are left out; only items of both are counted"
    return ""
