"""Comparison of the prompt that a server made of a row with the checkpoint's own, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from uniprune.errors import UserError
from uniprune.pruning.budget import keep_count

SHOWN = 6
"""Tokens shown around a difference."""


def kept_tokens(own: Sequence[int], served: Sequence[int], visual: Sequence[int], ratio: float, index: str) -> int:
    """Return the visual tokens of a served prompt, which is the own one with fewer placeholders in every image.

    Args:
        own: ids of the un-pruned prompt.
        served: ids of the prompt that the server computed.
        visual: placeholder ids.
        ratio: keep ratio that the server must have applied to every image.
        index: of the row, for messages.

    Raises:
        UserError: texts differ, or an image has another number of tokens than the ratio leaves of it.
    """
    expected = list(_pruned(own, visual, ratio))
    if expected == list(served):
        return sum(token in visual for token in served)
    place = next(
        (i for i, (a, b) in enumerate(zip(expected, served, strict=False)) if a != b), min(len(expected), len(served))
    )
    around = slice(max(0, place - 2), place + SHOWN)
    raise UserError(
        f"the server made another prompt of row {index} than the checkpoint's chat template and processor: "
        f"{len(served)} tokens instead of {len(expected)}, and from token {place} on {list(served[around])} instead of "
        f"{expected[around]}. Start it with the checkpoint's own chat template and processor, and the keep ratio of "
        "this run; of messages with text before an image, --question hidden puts images first"
    )


def _pruned(own: Sequence[int], visual: Sequence[int], ratio: float) -> Iterator[int]:
    """Yield the ids of a prompt with as many placeholders as the ratio leaves of every image."""
    for token, run in groupby(own):
        count = len(list(run))
        yield from [token] * (keep_count(count, ratio) if token in visual else count)
