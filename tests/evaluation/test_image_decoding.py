"""Images as VLMEvalKit converts them and as viewers show them, of every kind where the two differ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.helpers.image_files import CLEAR, DIFFERENT, PHOTO, RAMP, SAME, drawing, opened, png, saved, turned
from uniprune.evaluation.image_decoding import as_rgb, converted
from uniprune.modeling.messages import Part
from uniprune.results.remarks import DEPTH, FRAMES, ORIENTATION, REMARKS, TRANSPARENCY


def pixels(data: bytes, decoding: str = "viewer") -> np.ndarray:
    return np.asarray(as_rgb(opened(data), decoding)[0])


def remarks(data: bytes, decoding: str = "kit") -> tuple[str, ...]:
    return as_rgb(opened(data), decoding)[1]


@pytest.mark.parametrize("name", [*DIFFERENT, *SAME])
def test_the_kits_image_is_what_convert_makes_and_remarks_name_each_difference(name):
    data, expected = DIFFERENT[name] if name in DIFFERENT else (SAME[name], ())
    assert np.array_equal(pixels(data, "kit"), np.asarray(opened(data).convert("RGB")))
    assert remarks(data) == expected
    assert np.array_equal(pixels(data, "kit"), pixels(data, "viewer")) == (not expected)
    assert remarks(data, "viewer") == ()


@pytest.mark.parametrize("value", range(1, 9))
def test_orientations_are_undone(value):
    data = saved(PHOTO, exif=turned(value))
    image, _ = as_rgb(opened(data), "viewer")
    assert np.array_equal(np.asarray(image), np.asarray(ImageOps.exif_transpose(opened(data))))
    # A processor that reads the orientation finds none, with either decoding.
    assert not any(dict(as_rgb(opened(data), decoding)[0].getexif()) for decoding in ("kit", "viewer"))


@pytest.mark.parametrize("name", [name for name, (_, expected) in DIFFERENT.items() if expected == (DEPTH,)])
def test_the_whole_range_is_grey(name):
    shown = pixels(DIFFERENT[name][0])
    assert np.abs(shown - 255 * RAMP[..., None]).max() <= 1
    assert (shown == shown[..., :1]).all()


def test_greys_of_16_bits_are_those_of_colours_of_16_bits():
    grey = png(16, 0, b"\x12\xff\x80\x00", 2, b"\0\1")
    colour = png(16, 2, b"\x12\xff" * 3 + b"\x80\x00" * 3, 2, b"\0\1" * 3)
    assert pixels(grey).tolist() == pixels(colour).tolist() == [[[0x12] * 3, [0x80] * 3]]


def test_floats_that_are_no_numbers():
    values = np.array([[np.nan, np.inf, -np.inf, 0.5, 1.0]], np.float32)
    assert pixels(saved(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 255, 0, 128, 255]
    assert pixels(saved(Image.fromarray(values[:, :1]), "TIFF"))[0, :, 0].tolist() == [0]


@pytest.mark.parametrize("name", [name for name, (_, expected) in DIFFERENT.items() if expected == (TRANSPARENCY,)])
def test_what_is_transparent_is_white(name):
    shown = pixels(DIFFERENT[name][0])
    if shown.shape == (20, 40, 3):
        assert (shown[0, 0] == 255).all()
        assert (shown[10, 20] == 0).all()
    else:
        bits = {"tRNS of 2 bits": [0, 85, 255, 255], "tRNS of 4 bits": [255, 187], "tRNS of 16 bit RGB": [255, 0]}
        assert shown[0, :, 0].tolist() == bits.get(name, [255] * 8)


def test_every_step_of_one_image():
    values = np.full((20, 40), 0x8000, np.uint16)
    values[:, :5] = 7
    data = saved(Image.fromarray(values), transparency=7, exif=turned(6))
    assert remarks(data) == (DEPTH, TRANSPARENCY, ORIENTATION)
    shown = pixels(data)
    assert (shown.shape, set(shown[:5].ravel()), set(shown[5:].ravel())) == ((40, 20, 3), {255}, {128})


def test_half_transparent_black_is_grey_and_turned_after_it():
    image = drawing("RGBA", CLEAR, (0, 0, 0, 128))
    data = saved(image, exif=turned(6))
    assert remarks(data) == (TRANSPARENCY, ORIENTATION)
    shown = pixels(data)
    assert shown.shape == (40, 20, 3)
    assert (shown[0, 0].tolist(), shown[20, 10].tolist()) == ([255] * 3, [127] * 3)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("decoding", ["kit", "viewer"])
def test_of_several_frames_the_first_is_shown_and_said(kind, decoding):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(PHOTO.quantize(16), kind, save_all=True, append_images=[PHOTO.rotate(180).quantize(16)], **options)
    image, found = as_rgb(opened(data), decoding)
    assert found == (FRAMES,)
    assert np.array_equal(np.asarray(image), np.asarray(opened(data).convert("RGB")))


def test_damaged_images_are_refused_and_damaged_further_frames_are_not():
    for cut in (0.3, 0.9):
        with pytest.raises(OSError, match=r"truncated|cannot identify"):
            as_rgb(opened(saved(PHOTO)[: int(cut * len(saved(PHOTO)))]))
    data = saved(PHOTO.quantize(16), "GIF", save_all=True, append_images=[PHOTO.rotate(180).quantize(16)])
    assert as_rgb(opened(data[:-200]))[0].size == PHOTO.size


def test_an_image_that_was_loaded_before_can_be_used_again():
    image = opened(saved(PHOTO, "TIFF", exif=turned(3)))
    image.load()
    assert as_rgb(image, "viewer")[0].tobytes() == as_rgb(image, "kit")[0].tobytes()
    assert as_rgb(PHOTO)[0].tobytes() == PHOTO.tobytes()


def test_a_message_has_each_remark_once():
    turn: Callable[[], Part] = lambda: Part(image=opened(saved(PHOTO, exif=turned(6))))  # noqa: E731
    clear = Part(image=opened(DIFFERENT["LA"][0]))
    parts, found = converted([turn(), Part(text="and"), clear, turn()], "kit")
    assert found == (ORIENTATION, TRANSPARENCY)
    assert [part.text for part in parts] == [None, "and", None, None]
    assert {part.image.mode for part in parts if part.image} == {"RGB"}
    assert set(found) < set(REMARKS)
