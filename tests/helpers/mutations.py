"""Deliberate faults, one at a time, that tests must notice: `python -m tests.helpers.mutations [WORD …]`.

Each mutation changes a temporary copy of the sources and runs tests on it, which must fail. They are listed in
mutations.yaml; with words, only those whose name or file has one of them run.
"""

from __future__ import annotations

import compileall
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.helpers.paths import ROOT, TESTS
from tests.helpers.prefork import pytest_in

COPIED = ("uniprune", "methods", "models", "benchmarks", "configs", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Mutation:
    """One deliberate fault.

    Attributes:
        name: the broken behaviour.
        file: the source file.
        old: text that occurs once in it.
        new: its replacement.
        caught_by: the tests of which one must fail: a file, or one test of it (`FILE::TEST`).
    """

    name: str
    file: str
    old: str
    new: str
    caught_by: str

    def apply(self, root: Path) -> None:
        """Break the sources in a folder.

        Raises:
            ValueError: the text to replace does not occur exactly once.
        """
        file = root / self.file
        text = file.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.old!r} occurs {text.count(self.old)} times in {self.file}")
        file.write_text(text.replace(self.old, self.new), encoding="utf-8")
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
            compiled.unlink()  # Python compares times in seconds and sizes only


def _listed() -> Iterator[Mutation]:
    for group in yaml.safe_load((TESTS / "helpers" / "mutations.yaml").read_text(encoding="utf-8")):
        for name, (old, new) in group["faults"].items():
            yield Mutation(name, group["file"], old, new, group["caught_by"])


MUTATIONS = tuple(_listed())


def copy_sources(folder: Path) -> Path:
    """Copy what tests need into an empty folder, compile it, and return the folder."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
        else:
            shutil.copy2(ROOT / name, folder / name)
    for name in ("uniprune", "methods", "models", "benchmarks", "tests/helpers"):
        compileall.compile_dir(folder / name, quiet=1)
    return folder


def passes(sources: Path, *caught_by: str, mutation: Mutation | None = None) -> bool:
    """Check whether tests pass on a copy of the sources, with one fault if a mutation is given.

    Args:
        sources: a folder made by `copy_sources`; it is not changed.
        caught_by: test files, or single tests of them.
        mutation: the fault.

    Raises:
        ValueError: the text to replace does not occur exactly once.
        RuntimeError: the tests could not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(sources, Path(folder) / "copy")
        if mutation is not None:
            mutation.apply(copy)
        status, printed = pytest_in(copy, "-x", "-q", "-p", "no:cacheprovider", *caught_by)
        if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            raise RuntimeError(f"pytest could not run {' '.join(caught_by)}:\n{printed}")
        return status == pytest.ExitCode.OK


def survives(sources: Path, mutation: Mutation) -> bool:
    """Check whether the tests still pass with a fault; raises as `passes` does."""
    return passes(sources, mutation.caught_by, mutation=mutation)


def main() -> int:
    """Run the mutations and return 1 if any goes unnoticed."""
    words = sys.argv[1:]
    unnoticed = 0
    with tempfile.TemporaryDirectory() as folder:
        sources = copy_sources(Path(folder))
        for mutation in MUTATIONS:
            if not words or any(word in f"{mutation.name} {mutation.file}" for word in words):
                alive = survives(sources, mutation)
                unnoticed += alive
                print(f"{'NOT NOTICED' if alive else 'noticed':<12} {mutation.name}", flush=True)
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main())
