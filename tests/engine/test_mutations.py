"""The engine's tests fail on a broken engine."""

import pytest

from tests.helpers.mutations import MUTATIONS, Mutation, survives
from tests.helpers.paths import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_a_broken_engine_is_noticed(mutation: Mutation) -> None:
    assert not survives(mutation)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_mutations_still_apply(mutation: Mutation) -> None:
    """The text each one replaces exists exactly once, and the tests that should notice exist."""
    assert (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.old) == 1
    assert (ROOT / "tests" / "engine" / f"test_{mutation.caught_by}.py").is_file()
