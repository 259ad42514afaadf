"""Values kept between commands: made again once a source changes, and never an obstacle."""

from __future__ import annotations

from pathlib import Path

import pytest

from uniprune.utils.remembered import remembered


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "one.py").write_text("a = 1")
    return folder


def test_a_value_is_made_once_until_a_source_changes(sources: Path, tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> object:
        made.append(1)
        return {"rows": (1, 2), "number": len(made)}

    def get() -> object:
        return remembered("values", [sources], make, tmp_path / "kept")

    assert get() == {"rows": [1, 2], "number": 1}, "plain values, the first time as well"
    assert get() == {"rows": [1, 2], "number": 1}
    (sources / "two.py").write_text("b = 2")
    assert get() == {"rows": [1, 2], "number": 2}
    (sources / "one.py").write_text("a = 12")
    assert get() == {"rows": [1, 2], "number": 3}
    (tmp_path / "kept" / "values.json").write_text("{")
    assert get() == {"rows": [1, 2], "number": 4}


def test_a_folder_that_cannot_be_written_keeps_nothing(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert remembered("values", [sources], lambda: [1], tmp_path / "file") == [1]
