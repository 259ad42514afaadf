"""`report` writes the page of several folders, with links to their records, and refuses what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.page_runs import made_up, stored
from uniprune.cli.main import main
from uniprune.utils.setup import prepare


@pytest.fixture(scope="module", autouse=True)
def prepared() -> None:
    prepare([], debug=False)


def test_it_writes_the_page_of_several_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("plotly", reason="the package plotly is not installed")
    runs = made_up(1)
    stored(runs[:2], tmp_path / "a")
    stored(runs[2:], tmp_path / "b")
    page = tmp_path / "pages" / "runs.html"
    folders = [str(tmp_path / name) for name in "ab"]
    assert main(["report", "--output", *folders, "--items", "0", "--html", str(page)]) == 0
    assert f"written: {page} (" in capsys.readouterr().out
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "pages"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--items", "-1"], "--items -1 must be 0 or more items per benchmark"),
        (["--output", "nowhere"], "no run is stored in 'nowhere'"),
    ],
)
def test_it_refuses_by_name(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--html", "x.html", *arguments]) == 2
    assert message in capsys.readouterr().err
