"""Tests fail on broken sources, and pass on sound ones."""

from __future__ import annotations

import pytest

from tests.helpers.mutations import MUTATIONS, Mutation, passes, survives
from tests.helpers.paths import ROOT

OUTSIDE_THE_ENGINE = [mutation for mutation in MUTATIONS if not mutation.file.startswith("uniprune/engine/")]


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_a_fault_is_noticed(mutation: Mutation) -> None:
    assert not survives(mutation)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "bare"), sorted({(m.caught_by, m.bare) for m in MUTATIONS}))
def test_without_a_fault_the_same_tests_pass(file: str, bare: bool) -> None:
    """In the same kind of copy: otherwise they might fail there for another reason than the fault."""
    assert passes(file, bare)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_mutations_still_apply(mutation: Mutation) -> None:
    """The text each one replaces exists exactly once, and the tests that should notice exist."""
    assert (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.old) == 1
    assert (ROOT / mutation.caught_by).is_file()


def test_names_are_unique_and_numbers_are_covered_as_well_as_the_engine() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
    assert len(OUTSIDE_THE_ENGINE) >= 30
