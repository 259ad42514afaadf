"""Tests fail on broken sources, and pass on sound ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.helpers.mutations import MUTATIONS, Mutation, copy_sources, passes, survives
from tests.helpers.paths import ROOT
from tests.helpers.prefork import pytest_in

OUTSIDE_THE_ENGINE = [mutation for mutation in MUTATIONS if not mutation.file.startswith("uniprune/engine/")]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_sources(tmp_path_factory.mktemp("sources"))


TAKEN = MUTATIONS[::8]
"""Faults that `make test` makes; `make test-all` makes all."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutation",
    [pytest.param(one, marks=() if one in TAKEN else pytest.mark.exhaustive) for one in MUTATIONS],
    ids=lambda m: m.name,
)
def test_a_fault_is_noticed(mutation: Mutation, sources: Path) -> None:
    assert not survives(sources, mutation)


def grouped() -> Iterator[ParameterSet]:
    """Yield, per folder, the tests that notice a fault of `make test`, then those that notice only others."""
    taken = {mutation.caught_by for mutation in TAKEN}
    others = {mutation.caught_by for mutation in MUTATIONS} - taken
    for tests, note, marks in ((taken, "", ()), (others, " others", pytest.mark.exhaustive)):
        for folder, here in groupby(sorted(tests), key=lambda test: Path(test.partition("::")[0]).parent):
            yield pytest.param(tuple(here), marks=marks, id=f"{folder}{note}")


@pytest.mark.slow
@pytest.mark.parametrize("caught_by", grouped())
def test_without_a_fault_the_same_tests_pass(caught_by: tuple[str, ...], sources: Path) -> None:
    """In the same kind of copy: otherwise they might fail there for another reason than the fault."""
    assert passes(sources, *caught_by)


@pytest.mark.slow
def test_a_run_that_dies_is_no_failing_test(tmp_path: Path) -> None:
    (tmp_path / "test_dying.py").write_text("import os\n\n\ndef test_dying():\n    os._exit(1)\n")
    with pytest.raises(RuntimeError, match=r"test_dying.py did not end as it should"):
        pytest_in(tmp_path, "test_dying.py")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_mutations_still_apply(mutation: Mutation) -> None:
    """The text each one replaces exists exactly once, and the tests that should notice exist."""
    assert (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.old) == 1
    file, _, test = mutation.caught_by.partition("::")
    assert f"def {test.partition('[')[0]}" in (ROOT / file).read_text(encoding="utf-8")


def test_names_are_unique_and_numbers_are_covered_as_well_as_the_engine() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
    assert len(OUTSIDE_THE_ENGINE) >= 30
