"""What a benchmark is to the runner: rows to answer, prompts to ask, predictions to score."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from uniprune.errors import UserError, unknown
from uniprune.modeling.messages import Part, RawQuestion
from uniprune.registry import BENCHMARKS


@dataclass(frozen=True)
class Request:
    """One row to answer.

    Attributes:
        index: the row's id as VLMEvalKit prints it; unique in its dataset.
        parts: the user message. May be built, its images decoded, every time it is looked at: look once.
        question: the bare question, without option lists and formatting hints: what prompt-aware methods look at.
        max_new_tokens: longest answer, in tokens.
        asked: the row for a family that words its own prompts; None where only the benchmark can.
    """

    index: str
    parts: Sequence[Part]
    question: str
    max_new_tokens: int = 32
    asked: RawQuestion | None = None


@dataclass(frozen=True)
class Score:
    """What a dataset's predictions are worth.

    Attributes:
        value: headline score, 0–100. metric: its name ("F1", "accuracy", "sum / 2800", …).
        rows: rows scored. unparsed: rows whose answer the matching rules could not read (scored wrong).
        per_item: index -> 0..1 credit, for intervals and paired tests (per question group where scoring is per group).
        details: the kit's own table, as plain JSON values.
        judge: "exact" | "rule" | the judge model's name.
        clusters: index -> what the row shares with others, such as a picture; of all rows, also of those that are no
            item of their own. Rows left out stand alone. Intervals and tests draw whole clusters, because answers about
            one picture are right or wrong together.
        parts: how the headline follows from items, where it is not 100 times their mean credit: the mean over parts of
            a sum over items divided by another; part -> index -> (added above, added below the line).
    """

    value: float
    metric: str
    rows: int
    unparsed: int = 0
    per_item: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    judge: str = "exact"
    clusters: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class DataOptions:
    """What a registered benchmark factory is called with: `BENCHMARKS.get(name)(options) -> Dataset`.

    Registry metadata of every benchmark: `suite` ("mini", "ten", …), `ability`, `metric`, `judge` (one is needed).
    Where they are known also `rows` (how many it asks), `rows_known` (false: estimated), and `source`, a `Source`.
    Where scoring needs something, say a server, `preflight`: called with these options before a model is loaded, it
    raises UserError if that is not there.

    Attributes:
        data_dir: folder of the TSV files (generated there for the mini suite).
        judge: None (exact matching only), "rule" (labelled rule judge) or the URL of an OpenAI-compatible endpoint.
        judge_model: model name sent to that endpoint.
    """

    data_dir: Path
    judge: str | None = None
    judge_model: str | None = None


@dataclass(frozen=True)
class DataFile:
    """A benchmark's file on this machine.

    Attributes:
        path: where it must lie. size, md5: of what is there, in bytes; None where there is nothing.
        state: "ok", "absent", "altered" (it is not the published one), or "unchecked".
    """

    path: Path
    state: Literal["ok", "absent", "altered", "unchecked"]
    size: int | None = None
    md5: str | None = None


class Source(Protocol):
    """Where a benchmark's file comes from; registered as its metadata `source`. Without one, it needs no file."""

    def path(self, data_dir: Path) -> Path:
        """Where the file must lie."""

    def inspect(self, data_dir: Path) -> DataFile:
        """What lies in the data folder; reading a large file shows progress on stderr if that is a terminal."""

    def fetch(self, data_dir: Path) -> DataFile:
        """Bring the file there, whole or not at all, showing progress on stderr if that is a terminal.

        One that is there is kept: without a word if it is the published one, with a UserError otherwise.

        Raises:
            UserError: it cannot be had, with the reason.
        """


def download_command(names: Sequence[str], data_dir: Path) -> str:
    """What to type where files are missing."""
    return f"python run.py download {' '.join(names)} --data-dir {shlex.quote(str(data_dir))}"


class Dataset(Protocol):
    """A loaded benchmark.

    Attributes:
        name: registered name, e.g. "mini-pope" or "pope". ability: one of the six ability groups.
        fingerprint: md5 of the data file; part of a run's identity.
        faulty: index -> reason of rows that cannot be asked (corrupt image, missing field); counted, never dropped
            silently.
    """

    name: str
    ability: str
    fingerprint: str
    faulty: Mapping[str, str]

    def __len__(self) -> int:
        """Number of rows, faulty ones included."""

    def requests(self, limit: int | None = None) -> list[Request]:
        """Rows that can be asked, in file order, the first `limit` of them.

        Rows that are scored together are left out together, so a limit may give a few rows less (one such group at
        least). Images are decoded when `parts` is looked at.
        """

    def score(self, predictions: Mapping[str, str], workdir: Path, limit: int | None = None) -> Score:
        """Score predictions (index -> text) of the rows of `requests(limit)` in a fresh folder.

        Missing rows count as wrong and are reported; faulty rows are not scored and are reported.
        """


def dataset_names(patterns: Sequence[str] | None, suite: str) -> list[str]:
    """Names that `--data` or `--suite` mean. Raises UserError for one that means nothing."""
    if patterns is None:
        suites = {name: BENCHMARKS.entry(name).metadata.get("suite", "") for name in BENCHMARKS.names()}
        if suite not in suites.values():
            raise unknown("suite", suite, {s for s in suites.values() if s})
        return [name for name, of in suites.items() if of == suite]
    names: dict[str, None] = {}
    for pattern in patterns:
        matching = BENCHMARKS.names(pattern) or [BENCHMARKS.entry(pattern).name]
        names.update(dict.fromkeys(matching))
    return list(names)


class DatasetCollection:
    """Benchmarks of one data folder.

    Args:
        data_dir, judge, judge_model: as `DataOptions`; benchmarks of the mini suite are judged by rule unless told
            otherwise.
    """

    def __init__(self, data_dir: Path, judge: str | None = None, judge_model: str | None = None) -> None:
        self._data_dir, self._judge, self._judge_model = data_dir, judge, judge_model
        self._loaded: dict[str, Dataset] = {}
        self._unready: dict[str, str] = {}

    def all(self, names: Sequence[str]) -> list[Dataset]:
        """Some benchmarks. Raises UserError as `get` does, for files that are missing once for all of them."""
        sources = {name: BENCHMARKS.entry(name).metadata.get("source") for name in names}
        absent = [name for name, source in sources.items() if source and not source.path(self._data_dir).is_file()]
        if len(absent) > 1:
            raise UserError(
                f"{self._data_dir} lacks the files of {', '.join(absent)}; run: "
                f"{download_command(absent, self._data_dir)}"
            )
        return [self.get(name) for name in names]

    def get(self, name: str) -> Dataset:
        """A benchmark. Raises UserError for a file that is missing or altered, or a judge that is needed."""
        if name not in self._loaded:
            self._loaded[name] = BENCHMARKS.entry(name).target(self._options(name))
        return self._loaded[name]

    def check_scoring(self, names: Sequence[str]) -> None:
        """Find out in seconds what would keep answers to these benchmarks from being scored; each is tried once.

        Raises:
            UserError: say, a judge that does not answer.
        """
        for name in names:
            if name not in self._unready:
                check = BENCHMARKS.entry(name).metadata.get("preflight", lambda options: None)
                try:
                    check(self._options(name))
                    self._unready[name] = ""
                except UserError as error:
                    self._unready[name] = str(error)
            if self._unready[name]:
                raise UserError(self._unready[name])

    def _options(self, name: str) -> DataOptions:
        judge = self._judge or ("rule" if BENCHMARKS.entry(name).metadata.get("suite") == "mini" else None)
        return DataOptions(self._data_dir, judge, self._judge_model)

    def rows(self, name: str, limit: int | None) -> int | None:
        """Rows to ask; without its file what the registry says, None if that says nothing."""
        rows: int | None = BENCHMARKS.entry(name).metadata.get("rows")
        try:
            return len(self.get(name).requests(limit))
        except Exception:  # whatever keeps it from loading is told where it is to be asked
            return rows if rows is None or limit is None else min(rows, limit)
