"""Encoded rows and image features that the methods of one command share, within a bound on memory."""

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
    """What was encoded once: image features by what one picture shows, and prompts by row.

    Nothing is thrown out: methods go through the same rows in the same order, so of a store that cannot hold them all
    the part that came first serves every method, while a store that makes room for the latest would serve none.

    Args:
        limit: bytes to keep; what comes when they are used up is encoded again by every method.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._calls: dict[str, VisionCapture] = {}
        self._rows: dict[tuple[str, str], EncodedRequest] = {}
        self._sizes: dict[object, int] = {}

    def prompt(self, data: str, request: Request, blocks: frozenset[int]) -> EncodedRequest | None:
        """The encoded prompt of a row of the benchmark with fingerprint `data`, if its features are here, too."""
        row = self._rows.get((data, request.index))
        if row is None or row.length != request.max_new_tokens:
            return None
        return row if all(self.features(one.key, blocks) for one in row.pictures) else None

    def features(self, picture: str, blocks: frozenset[int]) -> VisionCapture | None:
        """Features of the picture of this key, if they were kept together with what `blocks` of the tower showed."""
        call = self._calls.get(picture)
        return call if call is not None and blocks <= call.blocks.keys() else None

    def keep(self, data: str, rows: Sequence[EncodedRequest], calls: Mapping[str, VisionCapture]) -> None:
        """Remember the tower's calls on pictures, by key, and prompts, without pixels, whose pictures are all here."""
        for key, call in calls.items():
            call.forget()  # else it would grow with every method that looks at it
            self._keep(self._calls, key, call)
        for row in rows:
            if all(one.key in self._calls for one in row.pictures):
                self._keep(self._rows, (data, row.index), row.without_pixels())

    def _keep(self, kept: dict[K, V], key: K, value: V) -> None:
        """Put a value in the place of an older one, while there is room."""
        needed = value.memory - self._sizes.get(key, 0)
        if needed <= self._free:
            self._free -= needed
            self._sizes[key] = value.memory
            kept[key] = value


def sharing(loaded: LoadedModel, gigabytes: float) -> FeatureCache | None:
    """What the methods of one command share on a model; None for no gigabytes.

    Raises:
        UserError: a negative amount, or a version of transformers whose `generate` takes no image features.
    """
    if gigabytes < 0:
        raise UserError(f"--share-vision {gigabytes:g} must be an amount of memory in GB, at least 0")
    if gigabytes and not supports_sharing(loaded.model):
        raise UserError(
            f"--share-vision needs a transformers whose {type(loaded.model).__name__} takes image features in generate "
            "(5.23 does); update it or leave the option out"
        )
    return FeatureCache(int(gigabytes * 1e9)) if gigabytes else None
