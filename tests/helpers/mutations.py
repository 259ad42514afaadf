"""Deliberate faults, one at a time, that tests must notice: `python -m tests.helpers.mutations [WORD …]`.

Each mutation changes a temporary copy of the sources and runs one test file on it, which must fail. They are listed in
mutations.yaml; with words, only those whose name or file has one of them run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.helpers.paths import ROOT, TESTS

COPIED = ("uniprune", "methods", "models", "benchmarks", "configs", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Mutation:
    """One deliberate fault.

    Attributes:
        name: the broken behaviour.
        file: the source file.
        old: text that occurs once in it.
        new: its replacement.
        caught_by: the test file that must fail.
        bare: whether these tests need no conftest.py, which imports torch.
    """

    name: str
    file: str
    old: str
    new: str
    caught_by: str
    bare: bool = False


def _listed() -> Iterator[Mutation]:
    for group in yaml.safe_load((TESTS / "helpers" / "mutations.yaml").read_text(encoding="utf-8")):
        for name, (old, new) in group["faults"].items():
            yield Mutation(name, group["file"], old, new, group["caught_by"], group.get("bare", False))


MUTATIONS = tuple(_listed())


def passes(caught_by: str, bare: bool, mutation: Mutation | None = None) -> bool:
    """Check whether a test file passes on a copy of the sources, with one fault if a mutation is given.

    Raises:
        ValueError: the text to replace does not occur exactly once.
        RuntimeError: the tests could not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in COPIED:
            source, target = ROOT / name, Path(folder) / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
            else:
                shutil.copy(source, target)
        if mutation is not None:
            file = Path(folder) / mutation.file
            text = file.read_text(encoding="utf-8")
            if text.count(mutation.old) != 1:
                raise ValueError(f"{mutation.name}: {mutation.old!r} occurs {text.count(mutation.old)} times in {file}")
            file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *["--noconftest"] * bare]
        run = subprocess.run([*command, caught_by], cwd=folder, capture_output=True, text=True, check=False)
        if run.returncode not in (0, 1):
            raise RuntimeError(f"pytest could not run {caught_by}:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
        return run.returncode == 0


def survives(mutation: Mutation) -> bool:
    """Check whether the tests still pass with a fault; raises as `passes` does."""
    return passes(mutation.caught_by, mutation.bare, mutation)


def main() -> int:
    """Run the mutations and return 1 if any goes unnoticed."""
    words = sys.argv[1:]
    unnoticed = 0
    for mutation in MUTATIONS:
        if not words or any(word in f"{mutation.name} {mutation.file}" for word in words):
            alive = survives(mutation)
            unnoticed += alive
            print(f"{'NOT NOTICED' if alive else 'noticed':<12} {mutation.name}", flush=True)
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main())
