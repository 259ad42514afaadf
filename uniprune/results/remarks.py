"""Remarks on rows: what happened to one that a reader of its score should know, counted per benchmark.

A row with a remark was asked and scored. Its prediction line holds the remarks, the benchmark's record their counts.
Every display of a score notes the remarks that reach `NOTED` of the rows, what is known about a judge, versions of a
scorer that differ, and batching that differs in a precision in which it changes answers; the leaderboard's column
"remarks" has all remarks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from uniprune.results.predictions import Prediction
from uniprune.results.records import DatasetRecord, ModelRecord, RunRecord

CONTEXT, CUT, UNREAD, WINDOWED = "context", "cut", "unread", "window"
QUESTION, MOVED = "question not found", "images moved"
ORIENTATION, DEPTH = "orientation ignored", "depth cut"
TRANSPARENCY, FRAMES = "transparency dropped", "first frame only"
REPEATED = "frames repeated"
BELOW, ABOVE = "below budget", "above budget"
REMARKS: Mapping[str, str] = {
    CONTEXT: "are longer, un-pruned and with their answer, than the model's context",
    CUT: "have an answer cut at its token limit",
    WINDOWED: "are longer than the window of the layer whose attention the method reads, so tokens beyond it get none "
    "(set layer to one behind a layer with full attention)",
    UNREAD: "have an answer that the scoring could not read",
    QUESTION: "do not contain their question as the benchmark gives it; a method that reads attention from the "
    "question's tokens gets it from the whole message",
    MOVED: "have text before an image, which --question hidden puts behind all images",
    ORIENTATION: "have an image whose EXIF orientation is not applied (--image-decoding viewer does)",
    DEPTH: "have an image of 16 or 32 bits whose values are cut at 255 (--image-decoding viewer scales them)",
    TRANSPARENCY: "have an image whose transparency is dropped (--image-decoding viewer puts it on white)",
    FRAMES: "have an image of several frames, of which the first is shown",
    BELOW: "have fewer visual tokens than the ratio gives, as no size of an image has exactly as many",
    ABOVE: "have more visual tokens than the ratio gives, as no size of an image has so few, or as it is not sought",
    REPEATED: "have a video of fewer frames than are to be shown, so that some are shown several times",
}
"""Remark as it is stored -> the words that follow the number of its rows.

Scorers count `UNREAD` themselves (`ScoreRecord.unparsed`); no prediction line has it.
"""
NOTED = 0.01
"""Share of a benchmark's rows from which on a remark is noted with its score."""
EXACT = "float32"
"""Precision in which the rounding of other batches changed no answer in the tests."""
NAMED = 3
"""Runs that one note names."""

Entries = Iterable[tuple[RunRecord, str]]
"""Benchmarks of runs, by name."""


@dataclass(frozen=True)
class RemarkCount:
    """Rows of a benchmark with one remark.

    Attributes:
        remark: the remark as it is stored.
        count: rows that have it.
        rows: rows that could have it.
    """

    remark: str
    count: int
    rows: int

    @property
    def share(self) -> float:
        """The rows that have it, as a share of all."""
        return self.count / max(self.rows, self.count)

    @property
    def words(self) -> str:
        """The remark in words, to follow the number of rows."""
        return REMARKS.get(self.remark, f"have the remark {self.remark!r}")

    def __str__(self) -> str:
        """Return `24 of 96 rows (25 %)`."""
        return f"{self.count} of {self.rows} rows ({100 * self.share:.3g} %)"


def count_remarks(predictions: Iterable[Prediction]) -> dict[str, int]:
    """Return how many predictions have each remark, in the order of `REMARKS`; those that none has are left out."""
    found = Counter(remark for one in predictions for remark in one.remarks)
    return {remark: found[remark] for remark in dict.fromkeys((*REMARKS, *sorted(found))) if found[remark]}


def remark_counts(entries: Sequence[DatasetRecord]) -> list[RemarkCount]:
    """Return the remarks on a benchmark of one or more runs together, with what its scorer could not read."""
    if not any(entry.remarks or (entry.score and entry.score.unparsed) for entry in entries):
        return []
    found, rows = Counter[str](), Counter[str]()
    for entry in entries:
        counts = {**entry.remarks, UNREAD: entry.score.unparsed if entry.score else 0}
        found.update(counts)
        rows.update(dict.fromkeys((*REMARKS, *counts), entry.answered))
    return [RemarkCount(remark, found[remark], rows[remark]) for remark in rows if found[remark]]


def score_notes(record: RunRecord, benchmark: str) -> Iterator[str]:
    """Yield what is printed below a score: on its judge, remarks on its rows, and batching that differs among them."""
    entry = record.datasets[benchmark]
    if record.setup.method.move_note:
        yield f"{record.setup.method.name} {record.setup.method.move_note}"
    if entry.score and entry.score.judge_note:
        yield entry.score.judge_note
    yield from (f"{one} {one.words}" for one in remark_counts([entry]) if one.share >= NOTED)
    if _depends_on_batches(record) and len(entry.batching) > 1:
        used = ", ".join(f"{rows} rows at batch size {size}" for size, rows in entry.batching.items())
        yield f"answers in {record.setup.dtype} depend on the batch size, which differs: {used}"


def row_notes(entries: Entries) -> list[str]:
    """Return the notes below a table of scores, each about one remark on one benchmark, with the runs it concerns most.

    They are followed by models with parts that were never tried, by what is known about judges, by the benchmarks that
    several versions of a scorer scored, and by those whose rows were batched in several ways, within a run or in runs
    of one model and precision, where this changes answers.
    """
    entries = list(entries)
    found: dict[tuple[str, str], list[tuple[RemarkCount, RunRecord]]] = defaultdict(list)
    for record, name in entries:
        for one in remark_counts([record.datasets[name]]):
            if one.share >= NOTED:
                found[name, one.words].append((one, record))
    notes = []
    for (name, words), counts in found.items():
        counts.sort(key=lambda pair: -pair[0].share)
        runs = _listed([f"{one} in {_label(record)}" for one, record in counts])
        notes.append(f"{name}: rows {words}: {runs}.")
    notes += _model_notes(entries) + _move_notes(entries)
    return notes + _judge_notes(entries) + _scorer_notes(entries) + _batch_notes(entries)


def all_remarks(entries: Mapping[str, Sequence[DatasetRecord]], models: Iterable[ModelRecord] = ()) -> str | None:
    """Return every remark on some benchmarks, however few rows have it, and several ways of batching; None without any.

    Args:
        entries: benchmark -> its entries in runs that differ in their seed only.
        models: those of the runs.
    """
    parts = list(dict.fromkeys(model.untried for model in models if model.untried))
    parts += [f"{name}: {one} {one.words}" for name, same in entries.items() for one in remark_counts(same)]
    for name, same in entries.items():
        if len(sizes := {size for entry in same for size in entry.batching}) > 1:
            parts.append(f"{name}: batch sizes {', '.join(sorted(sizes))}")
    return "; ".join(parts) or None


def _model_notes(entries: Entries) -> list[str]:
    """Return one note for every model with parts that were never tried."""
    models = (record.model for record, _ in entries)
    return list(dict.fromkeys(f"{model.name}: {model.untried}." for model in models if model.untried))


def _move_notes(entries: Entries) -> list[str]:
    """Return one note for each method whose pruning points moved, by model."""
    found = {
        (record.model.name, method.name, method.move_note): None
        for record, _ in entries
        if (method := record.setup.method).move_note
    }
    return [f"{model}: {name} {note}." for model, name, note in found]


def _judge_notes(entries: Entries) -> list[str]:
    """Return what is known about the judges, one note for all benchmarks of which the same is."""
    texts: dict[str, dict[str, None]] = defaultdict(dict)
    for record, name in entries:
        found = record.datasets[name].score
        if found and found.judge_note:
            texts[found.judge_note][name] = None
    return [f"{', '.join(names)}: {text}." for text, names in texts.items()]


def _scorer_notes(entries: Entries) -> list[str]:
    """Return one note for all benchmarks of which the same versions of a scorer scored the same runs."""
    cells: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record, name in entries:
        if score := record.datasets[name].score:
            cells[name][score.scorer or "a scorer without a version"].append(_label(record))
    texts: dict[str, list[str]] = defaultdict(list)
    for name, runs in cells.items():
        if len(runs) > 1:
            used = "; ".join(f"{scorer} scored {_listed(labels)}" for scorer, labels in runs.items())
            texts[
                f"versions of the scorer differ, so these scores are not compared: {used}. Run the same commands again "
                "with one version: predictions are kept, and only scores are made anew."
            ].append(name)
    return [f"{', '.join(names)}: {text}" for text, names in texts.items()]


def _batch_notes(entries: Entries) -> list[str]:
    """Return one note for all benchmarks that were batched alike in the same runs."""
    cells: dict[tuple[str, str, str], dict[tuple[str, ...], list[str]]] = defaultdict(lambda: defaultdict(list))
    for record, name in entries:
        sizes = sorted(record.datasets[name].batching)
        if sizes and _depends_on_batches(record):
            cell = cells[record.setup.weights, record.setup.dtype, name]
            cell[tuple(sizes)].append(_label(record))
    texts: dict[str, list[str]] = defaultdict(list)
    for (_, dtype, name), runs in cells.items():
        if len({size for sizes in runs for size in sizes}) > 1:
            used = "; ".join(f"{' and '.join(sizes)} in {_listed(labels)}" for sizes, labels in runs.items())
            texts[f"answers in {dtype} depend on the batch size, which differs: {used}."].append(name)
    return [f"{', '.join(names)}: {text}" for text, names in texts.items()]


def _depends_on_batches(record: RunRecord) -> bool:
    """Return whether rounding, which differs with the shape of a batch, is coarse enough to change answers."""
    return record.setup.dtype != EXACT


def _label(record: RunRecord) -> str:
    """Name a run in a note."""
    setup = record.setup
    return f"{record.model.name} {setup.method.name} {setup.ratio:g} ({record.identity})"


def _listed(texts: Sequence[str]) -> str:
    """Join the first few texts and count the others."""
    more = len(texts) - NAMED
    return ", ".join(texts[:NAMED]) + f" and {more} more" * (more > 0)
