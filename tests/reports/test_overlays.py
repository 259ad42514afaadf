"""Drawings of kept tokens: pixels of sheets, records of watched methods, rows by what a user names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.image_processors import photo
from uniprune.errors import UserError
from uniprune.evaluation.collection import DatasetCollection
from uniprune.evaluation.dataset import Dataset, Request
from uniprune.evaluation.frame_sampling import USUAL
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.runner import Runner
from uniprune.modeling.loading import LoadedModel
from uniprune.modeling.messages import Part
from uniprune.reports.overlays.animation import frames, save
from uniprune.reports.overlays.answers import Choice, Drawn, Reader, ShownRow, check_blocks
from uniprune.reports.overlays.drawing import EDGE, MERGED, PADDING, draw, draw_layer
from uniprune.reports.overlays.layout import sheet_of
from uniprune.reports.overlays.sheet import Panel, Sheet, layers
from uniprune.reports.overlays.targets import shown_rows
from uniprune.results.kept_tokens import KeptCells, Selections, ShownGrid

WHITE = Image.new("RGB", (100, 50), (255, 255, 255))
ROW = ShownRow(
    Request("0", lambda: [Part(image=photo(90, 60, 4)), Part(text="What?")], "What is the word?", 2),
    "one.png",
    "",
    "What?",
)
READER = Reader("kit", USUAL)


def selections(*grids: ShownGrid) -> Selections:
    return Selections(grids=list(grids), stages=[])


def grid(rows: int, columns: int, *area: float, picture: int = 0) -> ShownGrid:
    left, top, right, bottom = area or (0.0, 0.0, 1.0, 1.0)
    return ShownGrid(size=(1, rows, columns), area=(left, top, right, bottom), pictures=[picture])


def pixel(image: Image.Image, x: float, y: float) -> tuple[int, ...]:
    found = image.getpixel((int(x * image.width), int(y * image.height)))
    assert isinstance(found, tuple)
    return found


def test_dropped_tokens_are_dark_and_kept_ones_as_they_were() -> None:
    kept = np.array([True, False, False, False, False, False, False, True])
    panel = Panel(("a",), selections(grid(2, 4)), kept, merged=np.arange(8) == 7)
    [[layer]] = layers(panel.selections)
    image = draw_layer(panel, layer, WHITE, 400)
    assert image.size == (400, 200)
    assert pixel(image, 1 / 8, 1 / 4) == (255, 255, 255)
    assert pixel(image, 3 / 8, 1 / 4) == pixel(image, 1 / 8, 3 / 4)
    assert max(pixel(image, 3 / 8, 1 / 4)) < 140
    assert pixel(image, 7 / 8, 3 / 4) == MERGED
    assert image.getpixel((99, 50)) == EDGE
    assert image.getpixel((50, 0)) == (255, 255, 255)  # the picture's own border is no edge


def test_padding_and_what_no_token_shows_are_told_apart() -> None:
    """Of a wide picture: a square with padding above and below, and a square that is cropped from its middle."""
    padded = Panel(("a",), selections(grid(2, 2, 0.0, -0.5, 1.0, 1.5)), np.ones(4, bool))
    [[layer]] = layers(padded.selections)
    image = draw_layer(padded, layer, WHITE, 200)
    assert image.size == (200, 200)
    assert pixel(image, 0.5, 0.1) == PADDING
    assert pixel(image, 0.5, 0.5) == (255, 255, 255)
    cropped = Panel(("a",), selections(grid(2, 2, 0.25, 0.0, 0.75, 1.0)), np.ones(4, bool))
    [[layer]] = layers(cropped.selections)
    image = draw_layer(cropped, layer, Image.new("RGB", (100, 50)), 200)
    assert image.size == (200, 100)
    assert pixel(image, 0.5, 0.5) == (0, 0, 0)
    assert min(pixel(image, 0.1, 0.5)) > 100


def test_tiles_and_the_tile_of_the_whole_image_are_layers() -> None:
    tiles = [grid(2, 2, 0.0, 0.0, 0.5, 1.0), grid(2, 2, 0.5, 0.0, 1.0, 1.0), grid(2, 2)]
    [[fine, whole]] = layers(selections(*tiles))
    assert [len(fine.slices), len(whole.slices)] == [2, 1]
    assert whole.slices[0].first == 8
    assert [len(one) for one in layers(selections(grid(2, 2), grid(2, 2, picture=1)))] == [1, 1]


def test_a_map_is_bright_where_it_is_high() -> None:
    panel = Panel(("a",), selections(grid(1, 2)), np.ones(2, bool), heat=np.array([0.0, 0.5]))
    [[layer]] = layers(panel.selections)
    image = draw_layer(panel, layer, Image.new("RGB", (100, 50)), 200)
    assert sum(pixel(image, 0.25, 0.5)) < 30
    assert sum(pixel(image, 0.75, 0.5)) > 400


def test_sheets_of_the_smallest_and_of_long_words_are_drawn(tmp_path: Path) -> None:
    kept = np.array([True, False])
    panel = Panel(("a" * 300, "two words " * 30), selections(grid(1, 2)), kept)
    sheet = Sheet(("title " * 90,), (Image.new("RGB", (1, 900)),), ((panel,) * 3, (panel,)))
    image = draw(sheet, 64, 2)
    assert image.width < 600
    two = frames(sheet, 64, 2)
    assert len({one.size for one in two}) == 1
    for ending in ("gif", "apng"):
        save(two, tmp_path / "deep" / f"a.{ending}")
        with Image.open(tmp_path / "deep" / f"a.{ending}") as found:
            assert getattr(found, "n_frames", 1) == 2


@pytest.mark.parametrize("name", ["fastv", "visionzip", "pyramiddrop", "cdpruner", "zspaprune", "tome"])
def test_a_watched_method_chooses_as_by_itself(loaded: LoadedModel, name: str) -> None:
    pruner = MethodSpec(name, 0.25).normalised().pruner()
    shown = READER.answer(loaded, pruner, ROW)
    with Runner(loaded, pruner, 1, keep_selections=True, timed=False) as runner:
        request = Request("one.png", ROW.request.load, ROW.request.question, 2)
        [[alone]] = runner.predictions([request])
    assert shown.prediction == alone
    read = {"fastv": 1, "visionzip": 1, "pyramiddrop": 3}.get(name, 0)
    assert len(shown.maps) == read
    merged = shown.merged(0)
    assert (merged is not None) == (name == "visionzip")
    for values in shown.maps.values():
        assert values.shape == (144,)
        assert np.nanmin(values) >= 0


def test_the_map_of_fastv_is_what_it_ranks_by(loaded: LoadedModel) -> None:
    shown = READER.answer(loaded, MethodSpec("fastv", 0.25).normalised().pruner(), ROW)
    [((layer, name), values)] = shown.maps.items()
    assert (layer, name) == (2, "attention of layer 1 from the last token")
    kept = shown.selections.kept()
    assert values[kept].min() >= values[~kept].max()


def test_lines_begin_with_the_whole_model_and_blocks_come_first(loaded: LoadedModel) -> None:
    variants = {"divprune": [MethodSpec("divprune", ratio) for ratio in (0.1, 0.5)]}
    drawn = Drawn(ROW, READER.pictures(ROW))
    drawn.lines += READER.lines(loaded, ROW, variants, (0, -1))
    assert [[choice.label() for choice in line] for line in drawn.lines] == [
        ["tower attention"],
        ["un-pruned", "divprune 0.1"],
        ["un-pruned", "divprune 0.5"],
    ]
    sheet = sheet_of(drawn)
    assert [len(row) for row in sheet.rows] == [2, 2, 2]
    assert [panel.caption[1] for row in sheet.rows for panel in row] == [
        "importance in the vision tower, block 0",
        "importance in the vision tower, block -1",
        *("144 of 144 tokens", "14 of 144 tokens"),
        *("144 of 144 tokens", "72 of 144 tokens"),
    ]
    check_blocks((0, 3, -4), loaded.adapter)
    with pytest.raises(UserError, match=r"--blocks 4: the vision tower has 4 blocks; expected 0 to 3"):
        check_blocks((4,), loaded.adapter)
    assert draw(sheet).width > 448


def test_a_resized_image_says_how_many_tokens_there_were(loaded: LoadedModel) -> None:
    answer = READER.answer(loaded, MethodSpec("resize", 0.25).normalised().pruner(), ROW)
    drawn = Drawn(ROW, READER.pictures(ROW), [[Choice("m", "resize", 0.25, answer)]])
    [[panel]] = sheet_of(drawn).rows
    assert panel.caption[1] == "36 of 36 tokens (144 before the image was changed)"


def test_targets(tmp_path: Path, small: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.jpg", "a.png"):
        photo(30, 20).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    none = DatasetCollection(tmp_path)
    assert [row.name for row in shown_rows(str(tmp_path), None, none, 9)] == ["a.png", "b.jpg"]
    assert len(shown_rows(str(tmp_path), None, none, 1)) == 1
    [row] = shown_rows(str(tmp_path / "a.png"), "Why?", none, 1)
    assert (row.asked, row.request.question) == ("Why?", "Why?")
    assert READER.pictures(row)[0].size == (30, 20)
    [row] = shown_rows("small:3", None, none, 1)
    assert (row.name, row.benchmark) == ("small:3", "small")
    assert [row.name for row in shown_rows("small", None, none, 2)] == ["small:0", "small:1"]


def test_what_cannot_be_drawn_is_refused_in_a_line(tmp_path: Path, small: Dataset) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image")
    none = DatasetCollection(tmp_path)
    for target, question, message in (
        (str(tmp_path / "gone.png"), None, "gone.png does not exist; expected an image"),
        (str(tmp_path / "empty"), None, "has no image; expected files"),
        ("smal", None, r"unknown benchmark 'smal'; did you mean 'small'\? No file or folder has that name"),
        ("small:77", None, "benchmark small has no row '77' that can be asked; its rows: 0, 1, 2, 3, 4, …"),
        ("small:1", "Why?", "--question is for images of your own"),
    ):
        with pytest.raises(UserError, match=message):
            shown_rows(target, question, none, 1)
    for name, message in (("empty.png", r"is empty \(0 bytes\)"), ("text.png", "is damaged, cut off or no image")):
        [row] = shown_rows(str(tmp_path / name), None, none, 1)
        with pytest.raises(UserError, match=message):
            READER.pictures(row)
    with pytest.raises(UserError, match="words has no image or video, so there is no token to draw"):
        READER.pictures(ShownRow(Request("0", lambda: [Part(text="What?")], ""), "words"))


def test_stored_cells_are_those_of_the_grid() -> None:
    found = Selections(
        grids=[grid(1, 2), grid(2, 1, 0.5, 0.0, 1.0, 1.0)], stages=[KeptCells.of(0, np.eye(4, dtype=bool)[2])]
    )
    assert [cell.area for cell in found.cells()] == [
        *((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)),
        *((0.5, 0.0, 1.0, 0.5), (0.5, 0.5, 1.0, 1.0)),
    ]
    assert found.kept().tolist() == [False, False, True, False]
