"""Commands of the model card run in a plain interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize(
    "module", ["uniprune.models.tiny.measure", "uniprune.models.tiny.train", "uniprune.benchmarks.mini.report"]
)
def test_modules_that_are_programs_start(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")
