"""The choice among sizes, and JPEG's loss."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from uniprune.pruning.input_stage import Form, Size

if TYPE_CHECKING:
    from PIL.Image import Image
RELEASES = {
    "test_releases_2026.test_released_shares_are_far_from_their_names": "The share of tokens is not 1 / k^2: sides "
    "are rounded to tokens, and large images are limited before they are compared. 4000 x 6000 pixels have more tokens "
    "at k = 2 than whole, 2448 x 3264 have 3.4 times the budget.",
}


def nearest(size: Size, forms: Sequence[Form]) -> Form:
    """Return the form whose aspect is nearest to that of `size`; of equally near ones, the one of most tokens."""
    aspect = math.log(size[0] / size[1])
    return min(forms, key=lambda form: (abs(math.log(form.grid[0] / form.grid[1]) - aspect), -form.tokens))


def saved(image: Image) -> Image:
    """Return an image as it is after it was saved as JPEG."""
    from PIL import Image as Images

    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return Images.open(buffer).convert("RGB")
