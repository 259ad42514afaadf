"""Cache of encoded rows and image features for all methods of one command, within a memory limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from uniprune.engine.vision import VisionCapture
from uniprune.engine.vision_batch import supports_sharing
from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.processing import EncodedRequest
from uniprune.modeling.loading import LoadedModel

K = TypeVar("K", str, tuple[str, str])
V = TypeVar("V", EncodedRequest, VisionCapture)


class FeatureCache:
    """Image features by image, and encoded prompts by row.

    Nothing is evicted: methods read the same rows in the same order, so the entries that came first serve every method
    of a command, while a cache that made room for the latest would serve none.

    Args:
        limit: bytes to keep; what exceeds them is encoded again by every method.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._calls: dict[str, VisionCapture] = {}
        self._rows: dict[tuple[str, str], EncodedRequest] = {}
        self._sizes: dict[object, int] = {}

    def prompt(self, data: str, request: Request, blocks: frozenset[int]) -> EncodedRequest | None:
        """Return the prompt of a row of `data` (benchmark and fingerprint), if it and its features are cached."""
        row = self._rows.get((data, request.index))
        if row is None or row.length != request.max_new_tokens:
            return None
        return row if all(self.features(image.key, blocks) for image in row.images) else None

    def features(self, key: str, blocks: frozenset[int]) -> VisionCapture | None:
        """Return the features of an image, if they are cached together with the outputs of these `blocks`."""
        call = self._calls.get(key)
        return call if call is not None and blocks <= call.blocks.keys() else None

    def keep(self, data: str, rows: Sequence[EncodedRequest], calls: Mapping[str, VisionCapture]) -> None:
        """Store the vision tower's calls by image key, and the prompts, without pixels, whose images are all cached."""
        for key, call in calls.items():
            call.forget()  # else it would grow with every method that reads it
            self._keep(self._calls, key, call)
        for row in rows:
            if all(image.key in self._calls for image in row.images):
                self._keep(self._rows, (data, row.index), row.without_pixels())

    def _keep(self, kept: dict[K, V], key: K, value: V) -> None:
        """Store a value in place of an older one, while there is room."""
        needed = value.memory - self._sizes.get(key, 0)
        if needed <= self._free:
            self._free -= needed
            self._sizes[key] = value.memory
            kept[key] = value


def sharing(loaded: LoadedModel, gigabytes: float) -> FeatureCache | None:
    """Return the cache for a model; None for 0 GB.

    Raises:
        UserError: no amount of memory, or a version of transformers whose `generate` takes no image features.
    """
    if not 0 <= gigabytes <= 1e6:
        raise UserError(f"--share-vision {gigabytes:g} must be an amount of memory in GB, from 0 to a million")
    if gigabytes and not supports_sharing(loaded.model):
        raise UserError(
            f"--share-vision needs a transformers whose {type(loaded.model).__name__} takes image features in generate "
            "(5.23 does); update it or leave the option out"
        )
    return FeatureCache(int(gigabytes * 1e9)) if gigabytes else None
