"""RefCOCO, RefCOCO+ and RefCOCOg: eight splits of one file, and boxes in the coordinates that the kit reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.kit_tables import EXAMPLES, Row, png, write
from uniprune.benchmarks._kit.boot import boot
from uniprune.benchmarks._kit.boxes import SPLITS, split
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions

pytestmark = pytest.mark.end_to_end

ROWS = EXAMPLES["refcoco"].rows


def opened(folder: Path, rows: list[Row]) -> KitDataset:
    return KitDataset("refcoco", TASKS["refcoco"], write(folder / "own.tsv", rows), DataOptions(folder))


def test_rows_of_one_index_are_told_apart_by_their_split(tmp_path: Path) -> None:
    rows = [ROWS[0] | {"category": name.replace("_", " "), "image": png(i)} for i, name in enumerate(SPLITS)]
    dataset = opened(tmp_path, [*rows, rows[0] | {"index": "01"}, rows[0]])
    names = [f"{name}_0" for name in SPLITS] + ["RefCOCO_val_01"]
    assert [request.index for request in dataset.requests()] == names
    shown = [request.load()[0].image for request in dataset.requests()]
    assert [image.getpixel((0, 0))[0] for image in shown if image] == [*range(len(SPLITS)), 0]
    assert dataset.faulty == {"row 10": "index '0' occurs more than once"}
    score = dataset.score({n: "[0, 0, 500, 500]" * (i % 2 == 0) for i, n in enumerate(names)}, tmp_path / "scores")
    assert score.per_item == {n: float(i % 2 == 0) for i, n in enumerate(names)}
    assert score.parts.keys() == set(SPLITS) and score.value == pytest.approx(50)  # both rows of the first are right
    assert "thousandths" in score.judge_note


def test_splits_are_the_kits() -> None:
    cls = boot().refcoco.RefCOCODataset
    assert list(SPLITS) == cls.SPLIT_DISPLAY_ORDER
    forms = (
        "RefCOCO val",
        " RefCOCO+  test A",
        "RefCOCOg_test",
        "RefCOCO+ test-b",
        "refcoco val",
        "RefCOCO",
        "x y z",
        "",
    )
    for form in forms:
        theirs = cls._category_to_split(form)
        assert split({"category": form}) == (theirs if theirs in SPLITS else ""), form
    assert split({"category": "RefCOCO val", "split": "RefCOCOg_test"}) == "RefCOCOg_test"


def credit(folder: Path, reply: str, **cells: object) -> float:
    row = ROWS[0] | {"width": 640, "height": 480, "answer": "[0.5, 0.25, 1.0, 0.75]"} | cells
    [credit] = opened(folder, [row]).score({"RefCOCO_val_0": reply}, folder / "scores").per_item.values()
    return credit


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("[0.5, 0.25, 1.0, 0.75]", 1),
        ("[500, 250, 1000, 750]", 1),
        ("[[500, 250, 1000, 750]]", 1),
        ("<box>(500,250),(1000,750)</box>", 1),
        ("<|begin_of_box|>[1000, 750, 500, 250]<|end_of_box|>", 1),  # corners in any order
        ("[320, 120, 640, 360]", 0),  # pixels are read as thousandths
        ("[250, 500, 750, 1000]", 0),  # y before x
        ("[500, 250, 500, 500]", 0),  # width and height
        ("The 2nd man: [500, 250, 1000, 750]", 1),
        ("1 man at 500, 250, 1000, 750", 0),  # the first four numbers
        ("[500, 250, 1000", 0),
        ("", 0),
    ],
)
def test_coordinates_are_shares_or_thousandths(reply: str, right: int, tmp_path: Path) -> None:
    """A family that answers in another convention has numbers that say nothing about its boxes."""
    assert credit(tmp_path, reply) == right
    pixels = {"bbox_x1": 320, "bbox_y1": 120, "bbox_x2": 640, "bbox_y2": 360}
    assert credit(tmp_path, reply, **pixels) == right


def test_the_threshold_is_a_half(tmp_path: Path) -> None:
    assert credit(tmp_path, "[500, 250, 750, 750]") == 1
    assert credit(tmp_path, "[500, 250, 749, 750]") == 0


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"category": "RefCOCO train"}, "its split .* is none of RefCOCO_val, "),
        ({"category": ""}, "its split .* is none of RefCOCO_val, "),
        ({"split": "__import__('os').abort()"}, "its split .* is none of RefCOCO_val, "),
        ({"answer": "[320, 120, 640, 360]"}, "the right answer has numbers that are not from 0 to 1"),
        ({"answer": "left"}, "the right answer 'left' is no list of four numbers"),
        ({"answer": "[0.5, 0.5, 0.5, 0.75]"}, "VLMEvalKit counts no answer as right"),
        (
            {"bbox_x1": 1, "bbox_y1": 1, "bbox_x2": 9, "bbox_y2": 9, "width": "", "height": ""},
            "counts no answer as right",
        ),
    ],
)
def test_a_row_without_split_or_box_is_faulty(cells: Row, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        opened(tmp_path, [ROWS[0] | cells])


def test_scoring_touches_no_file_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kit's own class removes and downloads a file whose md5 differs, while it scores."""

    def download(*args: object) -> None:
        raise AssertionError("downloaded")

    monkeypatch.setattr(boot().refcoco, "download_file", download)
    monkeypatch.setenv("LMUData", str(tmp_path))
    file = write(tmp_path / "RefCOCO.tsv", ROWS)
    before = file.read_bytes()
    dataset = KitDataset("refcoco", TASKS["refcoco"], file, DataOptions(tmp_path))
    assert dataset.score(EXAMPLES["refcoco"].answers, tmp_path / "scores").value == pytest.approx(50)
    assert file.read_bytes() == before
