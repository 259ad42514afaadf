"""Pictures of noise, and what a processor makes of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from uniprune.modeling.image_settings import TYPE, enlarged
from uniprune.modeling.messages import Part

SMALL = ((8, 8), (64, 20), (200, 200), (200, 5), (300, 500), (500, 375))
"""Sizes, width first, with different aspect ratios: what is limited in tiles shows in the longest."""
LARGE = ((1600, 1200), (4000, 3000))
"""Sizes that show limits of pixels; encoded only if the small ones do not show an effect."""


class Pictures:
    """Pictures of noise, each encoded once per setting."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, tuple[int, int], int], bytes | str] = {}

    def encoded(
        self, processor: Any, size: tuple[int, int], factor: int = 1, call: Mapping[str, Any] | None = None
    ) -> bytes | str:
        """Return a hash of what a processor makes of an enlarged picture, or the reason why it makes nothing."""
        key = json.dumps([own(processor), call]), size, factor
        if key not in self._known:
            self._known[key] = encode(processor, size, factor, call or {})
        return self._known[key]

    def differ(self, one: Any, other: Any, factor: int = 1, call: Mapping[str, Any] | None = None) -> bool:
        """Return whether two processors encode some picture differently; a reason in place of one does.

        Args:
            one: the first.
            other: the second.
            factor: by which the pictures of the second are enlarged.
            call: fields of the image processor that are passed in the second one's call.
        """
        if isinstance(one, str) or isinstance(other, str):
            return True
        return any(self.encoded(one, size) != self.encoded(other, size, factor, call) for size in (*SMALL, *LARGE))


def encode(
    processor: Any, size: tuple[int, int], factor: int, call: Mapping[str, Any], copies: int = 1, apart: bool = False
) -> bytes | str:
    """Return a hash of the inputs that a processor makes of a picture, or the reason why it makes none.

    Args:
        processor: the processor.
        size: width and height of the picture.
        factor: by which it is enlarged.
        call: fields of the image processor that are passed in its call.
        copies: how often the picture is in the prompt.
        apart: whether each is processed as if it were the only one.
    """
    [part] = enlarged([Part(image=noise(size))], factor)
    digest = hashlib.blake2b()
    try:
        inputs = processed(processor, part.image, call, copies, apart)
    except Exception as error:  # processors raise whatever their settings lead to
        return reason(error)
    for name, value in sorted(inputs.items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(np.ascontiguousarray(value.numpy()).data)
    return digest.digest()


def noise(size: tuple[int, int]) -> Image.Image:
    """Return a picture of noise, always the same, of `size`, width first."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))


def processed(
    processor: Any,
    picture: Any,
    call: Mapping[str, Any] = MappingProxyType({}),
    copies: int = 1,
    apart: bool = False,
) -> dict[str, Any]:
    """Return what a processor makes of a message with `copies` of a picture; see `encode`."""
    message = [{"role": "user", "content": [{"type": "image"}] * copies + [{"type": "text", "text": "a"}]}]
    prompt, pictures = processor.apply_chat_template(message, tokenize=False), [picture] * copies
    images = pictures if apart else [pictures]
    return dict(processor(text=prompt, images=images, images_kwargs=dict(call), return_tensors="pt"))


def own(processor: Any) -> dict[str, Any]:
    """Return the fields of the image processor that are set, and its class, as plain values."""
    kind, fields = type(processor.image_processor), plain(processor.image_processor.to_dict())
    return {TYPE: kind.__name__} | {name: fields[name] for name in kind.valid_kwargs.__annotations__ if name in fields}


def plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    return json.loads(json.dumps(value, default=str))


def reason(error: Exception) -> str:
    """Return an exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
