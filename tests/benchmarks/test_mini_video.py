"""The mini video benchmark: the same clips everywhere, scored by the kit, run from the command line."""

from __future__ import annotations

import ast
import csv
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uniprune.benchmarks.mini_video.generate import CLIPS, NAME, VERSION, write
from uniprune.cli.main import main
from uniprune.evaluation.dataset import DataOptions
from uniprune.registry import BENCHMARKS
from uniprune.results.store import Store

pytestmark = pytest.mark.end_to_end

DIGEST = "7d62cc545aa7fdd2ec946cbea13f7628e5b267a7222721f77174abb1ab1171f3"
"""Of all cells of the table; when it changes on purpose, raise `VERSION` too."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write(folder / f"{NAME}-v{VERSION}")
    return folder


def rows(data: Path) -> list[dict[str, str]]:
    with (data / f"{NAME}-v{VERSION}" / f"{NAME}.tsv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_the_clips_are_the_recorded_ones(data: Path) -> None:
    digest = hashlib.sha256()
    for row in rows(data):
        digest.update("\t".join(row.values()).encode())
    assert digest.hexdigest() == DIGEST


def test_a_perfect_model_scores_100_and_a_silent_one_nothing(data: Path, tmp_path: Path) -> None:
    dataset = BENCHMARKS.get(NAME)(DataOptions(data))
    assert not dataset.faulty
    letters = {
        row["index"]: f"({'ABCD'[ast.literal_eval(row['candidates']).index(row['answer'])]})" for row in rows(data)
    }
    assert dataset.score(letters, tmp_path / "best").value == 100
    silent = dataset.score(dict.fromkeys(letters, ""), tmp_path / "silent")
    assert (silent.value, silent.unparsed, silent.rows) == (0, CLIPS, CLIPS)
    for letter in "ABCD":
        assert 10 < dataset.score(dict.fromkeys(letters, letter), tmp_path / letter).value < 40, "chance is 25 %"


def test_a_run_shows_clips_and_leaves_bad_ones_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    altered = tmp_path / "data" / f"{NAME}-v{VERSION}"
    shutil.copytree(data / f"{NAME}-v{VERSION}", altered)
    for frame in sorted((altered / "video/001").iterdir())[1:]:
        frame.unlink()
    for frame in (altered / "video/002").iterdir():
        frame.unlink()
    Image.new("RGB", (96, 64)).save(altered / "video/003/00007.png")
    (altered / "video/004/00007.png").write_bytes(b"no image")
    words = f"run --model tiny-qwen2.5-vl --data {NAME} --limit 6 --frames 3 --method divprune --ratio 0.25".split()
    words += ["--data-dir", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    assert main(words) == 0
    printed = capsys.readouterr()
    [record] = Store(tmp_path / "out").records()
    entry = record.datasets[NAME]
    assert entry.score is not None
    assert (entry.score.rows, entry.left_out, entry.answered) == (2, 4, 2)
    for index, reason in {
        "1": "video 001 has 1 frame; expected at least 2",
        "2": "video 002 has 0 frames; expected at least 2",
        "3": "frames of video 003 have different sizes: 96x96, 96x64",
        "4": "00007.png",
    }.items():
        assert reason in entry.faulty[index]
        assert f"row {index} is left out: " in printed.err + printed.out
    assert entry.ledger is not None
    assert (entry.ledger.frames, entry.ledger.initial, entry.ledger.average) == (3, 3 * 144, 3 * 36)
    assert (record.setup.frames, record.setup.fps) == (3, None)
    assert np.isclose(entry.ledger.requested, 3 * 36)
    words[words.index("tiny-qwen2.5-vl")] = "tiny-llava"
    assert main(words) == 2
    assert "tiny-llava cannot be shown: its processor, LlavaProcessor, is one without video" in capsys.readouterr().err
