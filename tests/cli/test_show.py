"""`show`: files of a benchmark's row and of images, methods with settings of their own, and refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.image_processors import photo
from tests.helpers.paths import PLUGINS
from uniprune.cli.main import main
from uniprune.cli.show import free_stem
from uniprune.results.kept_tokens import KeptCells

pytestmark = pytest.mark.end_to_end

Checkpoint = Callable[[str], Path]


def show(model: Path, *more: str) -> int:
    return main(["show", *more, "--model", str(model), "--plugin", str(PLUGINS / "small_benchmark.py")])


def page_data(path: Path) -> Any:
    found = re.search(r'<script id="data"[^>]*>(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_a_row_under_methods_of_several_kinds(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = ("none", "fastv", "zspaprune[k=0]", "zspaprune[k=1]", "pyramiddrop")
    words = ["small:2", "--method", *methods, "--ratio", "0.25", "0.5", "--maps", "--blocks", "1", "-1"]
    files = ["--output", str(tmp_path), "--format", "png", "gif", "html", "--side", "96"]
    assert show(checkpoint("llava"), *words, *files) == 0
    printed = capsys.readouterr().out
    assert re.search(r"zspaprune\[k=1\] 0\.5: .* GFLOPs, reads no scores that could be drawn\n", printed)
    assert re.search(r"fastv 0\.5: .* GFLOPs\n", printed)
    assert re.search(r"zspaprune\[k=1\] 0\.5: '.*', 72\.0 visual tokens per layer on average, [\d.]+ GFLOPs", printed)
    with Image.open(tmp_path / "small-2.png") as image, Image.open(tmp_path / "small-2.gif") as animation:
        assert image.width > 6 * 96
        assert getattr(animation, "n_frames", 1) == 3
    page = (tmp_path / "show.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    [row] = page_data(tmp_path / "show.html")
    assert [[choice["method"] for choice in line] for line in row["lines"]] == [
        ["tower attention"],
        *[["un-pruned", *methods[1:]]] * 2,
    ]
    layout, last = row["layouts"][0], row["lines"][2][4]
    kept = KeptCells(layer=0, bits=last["stages"][-1]["bits"]).mask(layout["tokens"])
    assert (layout["tokens"], [stage["layer"] for stage in last["stages"]]) == (144, [2, 3, 5])
    assert 0 < kept.sum() < 72
    assert row["pictures"][0].startswith("data:image/png;base64,")
    relevant, diverse = (row["lines"][1][place]["stages"][0]["bits"] for place in (3, 2))
    assert relevant != diverse


def test_files_of_one_name_do_not_overwrite_each_other(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        photo(30, 20).save(tmp_path / folder / "a.png")
    targets = [str(tmp_path / folder / "a.png") for folder in ("x", "y")]
    assert show(checkpoint("llava"), *targets, "--method", "divprune", "--output", str(tmp_path / "out")) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-2.png", "a.png"]
    assert free_stem("mini-x:7", {"mini-x-7"}) == "mini-x-7-2"
    capsys.readouterr()

    for words, message in (
        (
            [targets[0], "--method", "zspaprune"],
            "the question decides which tokens zspaprune would keep",
        ),
        ([targets[0], "--method", "zspaprune[k=0"], "must have the form NAME or NAME[field=value,field=value]"),
        ([targets[0], "--method", "divprune[kk=0]"], "unknown field of method 'divprune': 'kk'"),
        ([targets[0], "--limit", "0"], "--limit 0 must be at least 1"),
        ([targets[0], "--blocks", "4", "--method", "divprune"], "--blocks 4: the vision tower has 4 blocks"),
        ([str(tmp_path / "gone.png")], "gone.png does not exist; expected an image or video file"),
    ):
        assert show(checkpoint("llava"), *words) == 2
        assert message in capsys.readouterr().err


def test_stored_selections_are_drawn_without_the_model(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = ["--plugin", str(PLUGINS / "small_benchmark.py")]
    model, runs = ["--model", str(checkpoint("llava"))], ["--output", str(tmp_path / "runs")]
    common = [*model, "--data", "small", "--limit", "3", "--max-new-tokens", "2", *runs, *plugin]
    assert main(["run", "--method", "none", "divprune", "fastv", "--ratio", "0.25", "--keep-selections", *common]) == 0
    assert main(["run", "--method", "divprune", "--ratio", "0.5", *common]) == 0
    drawn = ["--output", str(tmp_path / "stored"), "--format", "html", "png"]
    assert main(["show", "small:1", "--stored", str(tmp_path / "runs"), *drawn, *plugin]) == 0
    live = ["--output", str(tmp_path / "live"), "--format", "html"]
    assert show(checkpoint("llava"), "small:1", "--method", "divprune", "fastv", "--ratio", "0.25", *live) == 0
    [stored], [fresh] = (page_data(tmp_path / name / "show.html") for name in ("stored", "live"))
    assert stored["layouts"] == fresh["layouts"]
    assert len(stored["lines"]) == 1  # the answers at 0.5 have no selections
    kept = [{one["method"]: one["stages"] for one in row["lines"][0]} for row in (stored, fresh)]
    assert next(iter(kept[0])) == next(iter(kept[1])) == "un-pruned"
    assert all(kept[0][name] == kept[1][name] for name in ("divprune", "fastv"))
    capsys.readouterr()

    for words, message in (
        (
            ["small:7"],
            "stored which tokens it kept of small:7 (0 answered it without that); run with --keep-sel",
        ),
        (["small:1", "--method", "divprune"], "--method has no meaning with --stored"),
        (["small:1", "--stored", str(tmp_path / "none")], "is no folder; expected the --output folder of runs"),
        ([str(tmp_path / "stored" / "small-1.png")], "--stored draws rows of benchmarks; small-1.png is a file"),
    ):
        assert main(["show", words[0], "--stored", str(tmp_path / "runs"), *words[1:], *plugin]) == 2
        assert message in capsys.readouterr().err
