"""Chat requests with a new random image and new words each, so that no cache of a server holds anything of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from uniprune.evaluation.serving.chat import GREEDY, data_url
from uniprune.latency.serving.options import LoadOptions

WORDS = ("red", "green", "blue", "circle", "square", "how", "many", "is", "there", "a", "the", "of")
"""Words of the texts, short ones in any vocabulary."""
GRAIN = 8
"""Random colours per side of an image, smooth between them: noise in every pixel would make large files."""


def image_requests(options: LoadOptions, round_: int, concurrency: int) -> Iterator[dict[str, Any]]:
    """Yield the requests of one round at one concurrency: the same for every series, no two alike."""
    draw = np.random.default_rng([options.seed, round_, concurrency])
    while True:
        pixels = draw.integers(0, 256, (GRAIN, GRAIN, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((options.side, options.side), Image.Resampling.BICUBIC)
        picture = {"type": "image_url", "image_url": {"url": data_url(image)}}
        yield request([picture, {"type": "text", "text": text(draw, options.words)}], options)


def text_requests(options: LoadOptions, round_: int, concurrency: int, words: int) -> Iterator[dict[str, Any]]:
    """Yield requests of so many words, without an image."""
    draw = np.random.default_rng([options.seed, round_, concurrency, words])
    while True:
        yield request([{"type": "text", "text": text(draw, words)}], options)


def text(draw: np.random.Generator, words: int) -> str:
    """Return random words."""
    return " ".join(draw.choice(WORDS, words))


def request(content: list[dict[str, Any]], options: LoadOptions) -> dict[str, Any]:
    """Return a request for exactly `options.new_tokens` tokens."""
    return {
        **GREEDY,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": options.new_tokens,
        "min_tokens": options.new_tokens,
        "ignore_eos": True,
        "return_token_ids": True,
        "stream_options": {"include_usage": True},
    }
