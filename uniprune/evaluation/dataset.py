"""Interface of a benchmark: rows to answer, prompts to build, predictions to score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

from uniprune.modeling.messages import Part, RawQuestion


@dataclass(frozen=True)
class Request:
    """One row to answer; light, because its images are opened by `load` only.

    Attributes:
        index: row id, letter by letter as in the data file; unique in its dataset.
        load: function that builds the user message, its images opened; called where the row is processed.
        question: bare question without option lists and formatting hints, for prompt-aware methods.
        max_new_tokens: longest prediction, in tokens.
        raw: cells of the row for a family with prompts of its own; None if only the benchmark can word it.
        wording: the message, texts and numbers of images, as the benchmark or the model's family words it; with it, a
            change of words is noticed when a run is resumed. Empty if the benchmark does not give it.
        group: label that rows scored together share (a pair, the rotations of a question); empty for a row alone. If
            one of them cannot be asked, none of them is scored.
        videos: number of its videos; a model that takes none is refused before the run starts.
        answer: expected answer, as the data file has it, for readers; empty if the benchmark does not give it.
    """

    index: str
    load: Callable[[], Sequence[Part]]
    question: str
    max_new_tokens: int = 32
    raw: RawQuestion | None = None
    wording: tuple[str | int, ...] = ()
    group: str = ""
    videos: int = 0
    answer: str = ""


def with_groups(refused: Mapping[str, str], requests: Sequence[Request]) -> dict[str, str]:
    """Return all rows that are left out of a score, with the reason.

    Args:
        refused: index -> reason of rows that could not be asked.
        requests: the rows.

    Returns:
        The refused rows, then the others of their groups.
    """
    first: dict[str, str] = {}
    for request in requests:
        if request.index in refused and request.group:
            first.setdefault(request.group, request.index)
    others = {
        request.index: f"scored together with row {first[request.group]}, which is left out"
        for request in requests
        if request.group in first and request.index not in refused
    }
    return {**refused, **others}


@dataclass(frozen=True)
class Score:
    """Score of a dataset's predictions.

    Attributes:
        value: headline score, 0–100.
        metric: its name ("F1", "accuracy", "sum / 2800", …).
        rows: rows scored: all that have a prediction.
        unparsed: rows whose prediction the matching rules could not read (scored wrong).
        per_item: index -> 0..1 credit, for intervals and paired tests (per question group where scoring is per group).
        details: the kit's own table, as plain JSON values.
        judge: "exact" | "rule" | the judge model's name.
        judge_note: what is known about these verdicts, shown with the score; may be empty.
        scorer: software that holds the matching rules, with its version; empty for the benchmark's own code.
        clusters: index -> key shared by rows that depend on each other, such as an image; of all rows, also of those
            that are no item of their own. A row that is not named is a cluster of one. Intervals and tests resample
            whole clusters, because predictions about one image are right or wrong together.
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
    judge_note: str = ""
    scorer: str = ""
    clusters: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class DataOptions:
    """Arguments of a registered benchmark factory: `BENCHMARKS.get(name)(options) -> Dataset`.

    Registry metadata of every benchmark: `suite` ("mini", "ten", …), `ability`, `metric`, `judge` (one is needed).
    Optional metadata: `rows` (how many it has), `rows_known` (false: estimated), `source` (a `Source`), and, where
    scoring needs something like a server, `preflight`: called with these options before a model is loaded, it raises
    UserError if that is missing.

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
        path: where it belongs.
        state: "ok", "absent", "altered" (not the published file), or "unchecked".
        size: bytes, None if absent.
        md5: hash of the contents, None if absent.
    """

    path: Path
    state: Literal["ok", "absent", "altered", "unchecked"]
    size: int | None = None
    md5: str | None = None


class Source(Protocol):
    """Origin of a benchmark's file, registered as its metadata `source`; a benchmark without one needs no file."""

    def path(self, data_dir: Path) -> Path:
        """Return where the file belongs."""

    def inspect(self, data_dir: Path) -> DataFile:
        """Check the file in the data folder; large files show progress on stderr if that is a terminal."""

    def fetch(self, data_dir: Path) -> DataFile:
        """Download the file, completely or not at all, with progress on stderr if that is a terminal.

        The published file is kept if it is there already.

        Raises:
            UserError: another file is in its place, or the download failed.
        """


class Dataset(Protocol):
    """A loaded benchmark.

    One whose rules belong to other software also has an attribute `scorer`, that of its scores: a sweep scores finished
    runs again when it has changed.

    Attributes:
        name: registered name, e.g. "mini-pope" or "pope".
        ability: ability group; six are UniPruneBench's.
        fingerprint: md5 of the data file; part of a run's identity.
        faulty: index -> reason of rows that cannot be evaluated (corrupt image, missing field); counted, never dropped
            silently.
    """

    name: str
    ability: str
    fingerprint: str
    faulty: Mapping[str, str]

    def __len__(self) -> int:
        """Return the number of rows, faulty ones included."""

    def requests(self, limit: int | None = None) -> list[Request]:
        """Return the rows without faults, in file order, the first `limit` of them.

        Rows that are scored together are left out together, so a limit may give a few rows less (one such group at
        least).
        """

    def score(
        self,
        predictions: Mapping[str, str],
        workdir: Path,
        limit: int | None = None,
        left_out: Mapping[str, str] = MappingProxyType({}),
    ) -> Score:
        """Score predictions of the rows of `requests(limit)` in a fresh folder.

        A row that is left out is in no denominator of the score: neither in the headline nor in `rows`, `per_item`,
        `clusters` or `parts`. A run checks that.

        Args:
            predictions: index -> text.
            workdir: the folder.
            limit: as for `requests`.
            left_out: index -> reason of rows without a prediction; always whole groups (`Request.group`). A run passes
                it only if there are any.

        Raises:
            UserError: a row has neither a prediction nor a reason, or no row is left.
        """
