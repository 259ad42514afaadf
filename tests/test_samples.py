"""`make test` runs a sample of the cases of tests marked `sample`, in which no value of a parameter is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.prefork import pytest_in

MATRIX = """
import pytest

@pytest.mark.sample(2)
@pytest.mark.parametrize(("row", "weight"), [("a", 1), ("b", 1), ("c", 2)])
@pytest.mark.parametrize("column", range(4))
def test_matrix(row, weight, column):
    with open("taken.txt", "a") as file:
        file.write(f"{row}{column}\\n")
"""


@pytest.mark.end_to_end
@pytest.mark.parametrize(("words", "cases"), [(("-m", "not exhaustive"), 6), ((), 12)])
def test_a_sample_has_every_row_and_every_column(words: tuple[str, ...], cases: int, tmp_path: Path) -> None:
    (tmp_path / "test_made_up.py").write_text(MATRIX, encoding="utf-8")
    samples = (ROOT / "tests" / "helpers" / "samples.py").read_text(encoding="utf-8")
    (tmp_path / "conftest.py").write_text(f"{samples}\npytest_itemcollected = leave_out\n", encoding="utf-8")
    status, printed = pytest_in(tmp_path, "-p", "no:cacheprovider", *words, "test_made_up.py")
    assert status == pytest.ExitCode.OK, printed
    taken = (tmp_path / "taken.txt").read_text().split()
    assert len(taken) == cases
    assert {case[0] for case in taken} == {*"abc"}
    assert {case[1] for case in taken} == {*"0123"}
