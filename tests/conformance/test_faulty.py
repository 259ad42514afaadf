"""Every fault is caught by its check."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from uniprune.cli.check import targets
from uniprune.conformance import CHECKS, MethodUnderTest, Models, examine, title
from uniprune.registry import METHODS

pytestmark = pytest.mark.end_to_end

FAULTY = Path(__file__).parent / "faulty"
CAUGHT_BY = {
    "batch_row": {"batch"},
    "changes_model": {"model untouched"},
    "changes_view": {"view untouched"},
    "both_forms": {"both forms", "batch", "several images"},
    "claims_random": {"seeds"},
    "claims_scale": {"scale invariance"},
    "duplicates": {"unique"},
    "environment": {"process state"},
    "global_random": {"random state", "repeatable"},
    "half_looks": {"float32 scores"},
    "half_scores": {"float32 scores"},
    "ignores_ratio": {"follows the ratio"},
    "kernel": {"attention kernels"},
    "mixes_images": {"several images", "batch"},
    "nan_merge": {"well formed"},
    "off_by_one": {"exact count"},
    "prompt_positions": {"in range"},
    "prunes_at_one": {"ratio 1"},
    "raises": {"runs"},
    "reads_the_question": {"question"},
    "remembers": {"method untouched", "sample order"},
    "single_token": {"one token"},
    "undeclared_random": {"seeds"},
    "unsorted": {"in place"},
}
UNSURE = {"global_random", "changes_model", "remembers"}
"""Faults with consequences that other checks see as well."""


@pytest.fixture
def environment() -> Iterator[None]:
    """Restore the environment variables that a fault changes."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def models() -> Models:
    """For faults that leave models as they are."""
    return Models()


def failures(method: Any, models: Models) -> dict[str, str]:
    """Return failed check -> detail."""
    judging = [check for check in CHECKS if title(check) not in ("bfloat16", "cost")]
    findings = examine(MethodUnderTest(method(), "llava", models), judging)
    return {one.check: one.result.detail for one in findings if one.result.outcome == "FAIL"}


@pytest.mark.sample(2)
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("fault", CAUGHT_BY)
def test_a_fault_is_caught_by_name(fault: str, models: Models) -> None:
    (name,) = targets(str(FAULTY / f"{fault}.py"))
    found = failures(METHODS.get(name), Models() if fault == "changes_model" else models)
    assert found.keys() >= CAUGHT_BY[fault]
    assert fault in UNSURE or found.keys() == CAUGHT_BY[fault], found
    assert all(found.values()), "a failure without a reason"


def test_every_fault_is_expected_somewhere() -> None:
    assert {path.stem for path in FAULTY.glob("*.py")} == set(CAUGHT_BY)
