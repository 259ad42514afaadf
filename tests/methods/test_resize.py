"""Resize: what its release leaves of images, and images that it cannot shrink."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.helpers.golden_cases import Methods
from uniprune.modeling.input_forms import GridForms, SquareForms

OPENED, QWEN2 = GridForms(28, 3136, 16384 * 784), GridForms(28, 3136, 2408448)
"""The sizes of VTC-Bench's runs: of images as its toolkit opens them, then of Qwen2-VL's processor."""


@pytest.mark.parametrize(("size", "ratio", "share"), [((4000, 6000), 0.25, 4.06), ((2448, 3264), 0.25, 3.39)])
def test_released_shares_are_far_from_their_names(
    methods: Methods, size: tuple[int, int], ratio: float, share: float
) -> None:
    method = methods("resize")(form="vtc-bench", ratio=ratio)
    small = method.shrunk(Image.new("L", size[::-1]))
    left, whole = (QWEN2.full(OPENED.pixels(one)) for one in ((small.height, small.width), size))
    assert left / (whole * ratio) == pytest.approx(share, abs=0.01)


def test_an_image_of_which_no_pixel_is_left_is_refused(methods: Methods) -> None:
    method = methods("resize")(form="vtc-bench", ratio=1 / 16)
    with pytest.raises(ValueError, match="an image of 40x3 cannot be shrunk by 4"):
        method.prepare(Image.new("RGB", (40, 3)), 1, QWEN2)


def test_squares_leave_the_image_to_the_processor(methods: Methods) -> None:
    image = Image.new("RGB", (40, 30))
    for keep, side in ((576, 24), (192, 13), (128, 11), (64, 8), (1, 1)):
        same, form = methods("resize")().prepare(image, keep, SquareForms(14, 24))
        assert same is image
        assert (form.tokens, form.limits) == (side**2, (side,))
