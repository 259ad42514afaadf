"""Benchmarks by name: patterns and suites resolved, files opened once, judges checked before a model is loaded."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from uniprune.errors import UserError, unknown
from uniprune.evaluation.dataset import DataOptions, Dataset
from uniprune.registry import BENCHMARKS
from uniprune.utils.paths import PROGRAM


def dataset_names(patterns: Sequence[str] | None, suite: str) -> list[str]:
    """Resolve `--data` patterns, or a suite if there are none, to benchmark names.

    Raises:
        UserError: a pattern or suite matches nothing.
    """
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


def download_command(names: Sequence[str], data_dir: Path) -> str:
    """Return the command line that downloads missing files."""
    return f"{PROGRAM} download {' '.join(names)} --data-dir {shlex.quote(str(data_dir))}"


class DatasetCollection:
    """Benchmarks of one data folder, each loaded once.

    Args:
        data_dir: as in `DataOptions`.
        judge: as in `DataOptions`; the mini suite is judged by rule by default.
        judge_model: as in `DataOptions`.
    """

    def __init__(self, data_dir: Path, judge: str | None = None, judge_model: str | None = None) -> None:
        self._data_dir, self._judge, self._judge_model = data_dir, judge, judge_model
        self._loaded: dict[str, Dataset] = {}
        self._unready: dict[str, str] = {}

    def all(self, names: Sequence[str]) -> list[Dataset]:
        """Load several benchmarks.

        Raises:
            UserError: as `get`; all missing files are named together.
        """
        sources = {name: BENCHMARKS.entry(name).metadata.get("source") for name in names}
        absent = [name for name, source in sources.items() if source and not source.path(self._data_dir).is_file()]
        if len(absent) > 1:
            raise UserError(
                f"{self._data_dir} lacks the files of {', '.join(absent)}; run: "
                f"{download_command(absent, self._data_dir)}"
            )
        return [self.get(name) for name in names]

    def get(self, name: str) -> Dataset:
        """Load a benchmark.

        Raises:
            UserError: its file is missing or altered, it needs a judge, or it was registered by another name.
        """
        if name not in self._loaded:
            dataset: Dataset = BENCHMARKS.entry(name).target(self._options(name))
            if dataset.name != name:  # its name is that of its file of predictions
                raise UserError(f"benchmark {name!r} calls itself {dataset.name!r}; correct its `name`")
            self._loaded[name] = dataset
        return self._loaded[name]

    def rows(self, name: str, limit: int | None) -> int | None:
        """Count the rows of a benchmark; without its file as registered, None if that is unknown."""
        rows: int | None = BENCHMARKS.entry(name).metadata.get("rows")
        try:
            return len(self.get(name).requests(limit))
        except Exception:  # raised again where the benchmark is evaluated
            return rows if rows is None or limit is None else min(rows, limit)

    def check_scoring(self, names: Sequence[str]) -> None:
        """Check that predictions of these benchmarks can be scored, each benchmark once.

        Raises:
            UserError: for example, a judge that does not reply.
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
