"""Several folders of runs, read as if everything were in one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from uniprune.errors import UserError
from uniprune.results.records import DatasetRecord, RunRecord
from uniprune.results.store import Store, refuse
from uniprune.utils.paths import PROGRAM


class ResultFolders:
    """The runs of one or more folders. A run that is in several has the benchmarks of all.

    Where several have the same benchmark of a run, one of them counts: one with a score before one without, then the
    one with more rows, then that of the folder named first. Copies that differ in more than this are noted.

    Args:
        roots: the folders.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = list(dict.fromkeys(roots))
        self._homes: dict[tuple[str, str], Path] = {}

    @property
    def names(self) -> str:
        """The folders, for messages."""
        return ", ".join(repr(str(root)) for root in self.roots)

    def records(self, note: Callable[[str], None] = refuse) -> list[RunRecord]:
        """Return all runs, sorted by identity.

        Args:
            note: called with every reason why something stored is in no record, or why a score is in doubt. By default
                they are errors.

        Raises:
            UserError: of several folders, one has no run.
        """
        found: dict[str, RunRecord] = {}
        self._homes.clear()
        for root in self.roots:
            records = Store(root).read_all(note)
            if not records and len(self.roots) > 1:
                raise UserError(f"no run is stored in {str(root)!r}; name folders of runs, or leave it out")
            for record in records:
                known = found.get(record.identity)
                found[record.identity] = self._joined(known, record, root, note)
        return [found[identity] for identity in sorted(found)]

    def required(self, note: Callable[[str], None] = refuse) -> list[RunRecord]:
        """Return all runs, of which there is at least one; `note` as for `records`.

        Raises:
            UserError: there is none.
        """
        doubts: list[str] = []
        records = self.records(doubts.append)
        if not records:
            reasons = "".join(f"\n{doubt}" for doubt in doubts)
            raise UserError(
                f"no run is stored in {self.names}; `{PROGRAM}` makes some, --output names their folder{reasons}"
            )
        for doubt in doubts:
            note(doubt)
        return records

    def answers(self, identity: str, dataset: str) -> Path:
        """Return the file of predictions that counts, after `records` was called."""
        root = self._homes.get((identity, dataset), self.roots[0])
        return root / identity / f"{dataset}.jsonl"

    def _joined(self, known: RunRecord | None, record: RunRecord, root: Path, note: Callable[[str], None]) -> RunRecord:
        """Return a run with the benchmarks that it has in another folder as well."""
        datasets = dict(known.datasets) if known else {}
        for name, entry in record.datasets.items():
            home = self._homes.get((record.identity, name))
            if home is not None:
                old = datasets[name]
                if _results(old) != _results(entry):
                    kept, other = (root, home) if _rank(entry) > _rank(old) else (home, root)
                    note(
                        f"{record.identity} {name}: {kept} and {other} have different results of this run; those of "
                        f"{kept} count"
                    )
                if _rank(entry) <= _rank(old):
                    continue
            datasets[name] = entry
            self._homes[record.identity, name] = root
        return (known or record).model_copy(update={"datasets": dict(sorted(datasets.items()))})


def _rank(entry: DatasetRecord) -> tuple[bool, int]:
    """Return a key by which one of several copies of a benchmark's results counts: the largest."""
    return entry.score is not None, entry.answered + entry.refused


def _results(entry: DatasetRecord) -> object:
    """Return what equal copies share: rows, what was answered and how it was scored; times and machines may differ."""
    return entry.model_dump(mode="json", exclude={"environments", "timing", "batching", "size"})
