"""Images of benchmark tables: equal to VLMEvalKit's own, or as viewers show them, and rows where these differ."""

from __future__ import annotations

import base64
import csv
import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests.helpers.image_files import DIFFERENT, PHOTO, SAME, saved
from tests.helpers.kit_tables import write
from uniprune.benchmarks._kit import images
from uniprune.benchmarks._kit.boot import boot, untouched
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.cli.main import main
from uniprune.evaluation.dataset import DataOptions
from uniprune.evaluation.feature_cache import FeatureCache
from uniprune.evaluation.image_decoding import as_rgb
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.prompts import worded
from uniprune.evaluation.run import Run
from uniprune.modeling.loading import LoadedModel
from uniprune.results.comparison import RunComparison
from uniprune.results.leaderboard import leaderboard
from uniprune.results.records import RunRecord
from uniprune.results.remarks import CUT, DEPTH, FRAMES, ORIENTATION, TRANSPARENCY
from uniprune.results.store import Store
from uniprune.utils.console import RunProgress

FILES = {**SAME, **{name: data for name, (data, _) in DIFFERENT.items()}}
REFUSED = ("16 bit PGM", "32 bit TIFF", "signed TIFF", "unsigned TIFF", "float", "CMYK", "32 bit values")
"""Beginnings of the names of files that VLMEvalKit cannot write as a PNG."""
ROWS = ("RGB PNG", "orientation 6 JPEG", "16 bit PNG", "LA", "RGBA", "opaque RGBA", "animation")
ANIMATION = saved(PHOTO.quantize(16), "GIF", save_all=True, append_images=[PHOTO.rotate(180).quantize(16)])


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def opened(folder: Path) -> KitDataset:
    rows = [
        {"index": i, "image": text({**FILES, "animation": ANIMATION}[name]), "question": "Is it red?"}
        | {"answer": "Yes" if i % 2 else "No", "category": "random"}
        for i, name in enumerate(ROWS)
    ]
    return KitDataset("pope", TASKS["pope"], write(folder / "POPE.tsv", rows), DataOptions(folder))


@pytest.mark.parametrize("name", FILES)
def test_the_kits_files_have_the_same_pixels(name, tmp_path):
    """VLMEvalKit writes a PNG; its wrappers open that and convert it."""
    boot()
    with untouched():
        kit = importlib.import_module("vlmeval.smp.vlm")
        path = tmp_path / "row.png"
        if name.startswith(REFUSED):
            with pytest.raises(OSError, match="cannot write mode"):
                kit.decode_base64_to_image_file(text(FILES[name]), str(path))
            return
        kit.decode_base64_to_image_file(text(FILES[name]), str(path))
        with Image.open(path) as image:
            theirs = np.asarray(image.convert("RGB"))
    assert np.array_equal(np.asarray(as_rgb(images.opened(text(FILES[name])))[0]), theirs)


def evaluate(
    loaded: LoadedModel, folder: Path, shared: FeatureCache | None = None, runs: str = "runs", **options: object
) -> RunRecord:
    run = Run(loaded, MethodSpec("none"), RunOptions(max_new_tokens=2, batch_size=2, **options))
    with RunProgress(len(ROWS), Console(quiet=True)) as progress:
        return run.evaluate([opened(folder)], Store(folder / runs), progress, shared)


@pytest.mark.end_to_end
def test_rows_that_look_different_are_counted_and_the_policy_is_part_of_the_run(loaded, tmp_path):
    kit, viewer = (evaluate(loaded, tmp_path, image_decoding=name) for name in ("kit", "viewer"))
    cut = {CUT: len(ROWS)}
    assert kit.datasets["pope"].remarks == cut | {ORIENTATION: 1, DEPTH: 1, TRANSPARENCY: 2, FRAMES: 1}
    assert viewer.datasets["pope"].remarks == cut | {FRAMES: 1}
    assert (kit.setup.image_decoding, viewer.setup.image_decoding) == ("kit", "viewer")
    assert kit.identity != viewer.identity
    assert [kit.datasets["pope"].faulty, viewer.datasets["pope"].faulty] == [{}, {}]
    records = list(Store(tmp_path / "runs").records())
    settings = [str(row["settings"]) for row in leaderboard(records).rows]
    assert sorted("image-decoding=viewer" in text for text in settings) == [False, True]
    assert not any("image-decoding=kit" in text for text in settings)
    comparison = RunComparison(records)  # neither is measured against the other
    assert [comparison.baseline(group) for group in comparison.groups] == comparison.groups


@pytest.mark.end_to_end
def test_workers_and_shared_features_have_the_same_remarks(loaded, tmp_path):
    expected = {CUT: len(ROWS), ORIENTATION: 1, DEPTH: 1, TRANSPARENCY: 2, FRAMES: 1}
    assert evaluate(loaded, tmp_path, workers=2).datasets["pope"].remarks == expected
    cache = FeatureCache(10**8)
    for runs in ("first", "cached"):
        assert evaluate(loaded, tmp_path, cache, runs).datasets["pope"].remarks == expected


def test_a_familys_message_has_the_same_images(tmp_path):
    for request in opened(tmp_path).requests():
        own = [part.image for part in request.load() if part.image]
        [family] = [part.image for part in worded(request, lambda row: [0, row.text]).load() if part.image]
        assert as_rgb(family, "viewer")[0].tobytes() == as_rgb(own[0], "viewer")[0].tobytes()


@pytest.mark.end_to_end
def test_the_option_of_a_command(checkpoint, tmp_path):
    common = ["--model", str(checkpoint("llava")), "--method", "none", "--data", "mini-pope", "--limit", "2"]
    common += ["--max-new-tokens", "2", "--data-dir", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    assert main(common) == main([*common, "--image-decoding", "viewer"]) == 0
    board = csv.DictReader((tmp_path / "out" / "leaderboard.csv").open())
    assert sorted("image-decoding=viewer" in row["settings"] for row in board) == [False, True]
