"""Sizes of images of towers that take any."""

from __future__ import annotations

import math

from uniprune.errors import UserError
from uniprune.modeling.random_images import Size


def rectangle(tokens: int) -> Size:
    """Return the rectangle of so many tokens that is nearest to a square.

    Raises:
        UserError: its sides are more than 1:4 apart.
    """
    height = max(side for side in range(1, math.isqrt(tokens) + 1) if tokens % side == 0)
    if tokens > 4 * height**2:
        raise UserError(
            f"{tokens} visual tokens make no rectangle with sides at most 1:4 apart; use another number, say "
            f"{math.isqrt(tokens) ** 2}"
        )
    return height, tokens // height
