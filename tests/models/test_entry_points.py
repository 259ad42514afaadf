"""Commands of the model card are programs."""

from __future__ import annotations

import pytest

from tests.helpers.programs import Program

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize(
    "module", ["uniprune.models.tiny.measure", "uniprune.models.tiny.train", "uniprune.benchmarks.mini.report"]
)
def test_modules_that_are_programs_start(module: str) -> None:
    program = Program(["--help"], module=module)
    shown, printed = program.communicate(timeout=200)
    assert program.returncode == 0, printed
    assert shown.startswith("usage:")
