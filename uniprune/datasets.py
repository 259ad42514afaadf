"""Benchmarks by name or pattern, each loaded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uniprune.benchmark import DataOptions, Dataset, download_command
from uniprune.errors import UserError, unknown
from uniprune.registry import BENCHMARKS


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


class Library:
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
