"""The benchmark of selections: both ways of a contest choose the same; table, file and pictures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.perf import selections
from tests.perf.selections import Row, contests, main, plot, table

pytestmark = pytest.mark.end_to_end


def alike(a: Any, b: Any) -> bool:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    return True


def same_set(a: Any, b: Any) -> bool:
    return set(a.tolist()) == set(b.tolist())


AGREE: dict[str, Callable[[Any, Any], bool]] = {
    **dict.fromkeys(("divprune", "cdpruner", "zspaprune", "gprune", "vispruner", "dart"), same_set),
    **dict.fromkeys(("prumerge", "sparsevlm"), alike),
    "mustdrop": lambda windows, likeness: len(windows) == int((likeness >= 0.8).sum()),
}


def test_both_ways_choose_the_same() -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        for contest in contests(256, 64, torch.device("cpu")):
            assert AGREE[contest.method](contest.ours(), contest.published()), contest.method


def test_bound_of_half_a_product() -> None:
    row = Row("a", 256, 64, ours=2.0, published=12.0, unavoidable=4.0, symmetric=True)
    assert (row.speedup, row.overhead, row.bound) == (6, 0.5, 6)
    assert Row("a", 256, 64, 2.0, 12.0, 4.0, symmetric=False).bound == 3
    assert table([row]).splitlines()[-1] == "| a | 256 | 64 | 2.00 | 12.00 | 4.00 | 6.0 | 6.0 | 0.50 |"


def test_table_file_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--tokens", "256", "576", "--width", "8", "16", "--method", "mustdrop", "dart", "--seconds", "0"]
    main([*chosen, "--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.png")])
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [(row["method"], row["tokens"], row["width"]) for row in rows] == [
        (method, tokens, width) for method in ("dart", "mustdrop") for width in (8, 16) for tokens in (256, 576)
    ]
    assert table(Row(**row) for row in rows) == capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["a-16.png", "a-8.png"]


def test_one_panel_per_method(tmp_path: Path) -> None:
    rows = [Row(name, n, 8, n, 2 * n, n / 2, False) for name in "abcd" for n in selections.GRIDS]
    plot(rows, tmp_path / "new" / "four.png")
    assert (tmp_path / "new" / "four.png").stat().st_size > 10_000
