"""Encoded rows and image features that the methods of one command share, within a bound on memory."""

from __future__ import annotations

from collections.abc import Sequence

from uniprune.benchmark import Request
from uniprune.encoding import Encoded
from uniprune.engine.shared import size, supports_sharing
from uniprune.engine.vision import VisionCall
from uniprune.errors import UserError
from uniprune.loading import LoadedModel


class Shared:
    """What was encoded once: image features by what the pictures show, and prompts by row.

    Nothing is thrown out: methods go through the same rows in the same order, so of a store that cannot hold them all
    the part that came first serves every method, while a store that makes room for the latest would serve none.

    Args:
        limit: bytes of features to keep; what comes when they are used up is encoded again by every method.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._calls: dict[str, VisionCall] = {}
        self._rows: dict[tuple[str, str], Encoded] = {}

    def prompt(self, data: str, request: Request, blocks: frozenset[int]) -> Encoded | None:
        """The encoded prompt of a row of the benchmark with fingerprint `data`, if its features are here, too."""
        row = self._rows.get((data, request.index))
        if row is None or row.length != request.max_new_tokens:
            return None
        return row if not row.pictures or self.features(row.pictures, blocks) is not None else None

    def keep_prompts(self, data: str, rows: Sequence[Encoded]) -> None:
        """Remember the prompts, without their pixels, whose features are here."""
        for row in rows:
            if not row.pictures or row.pictures in self._calls:
                self._rows[data, row.index] = row.without_pixels()

    def features(self, pictures: str, blocks: frozenset[int]) -> VisionCall | None:
        """Features of some pictures, if they were kept together with what `blocks` of the tower showed."""
        call = self._calls.get(pictures)
        return call if call is not None and blocks <= call.blocks.keys() else None

    def keep_features(self, pictures: str, call: VisionCall) -> None:
        """Remember features, in place of those that show less, while there is room."""
        old = self._calls.get(pictures)
        needed = size(call) - (size(old) if old is not None else 0)
        if needed <= self._free:
            self._free -= needed
            self._calls[pictures] = call


def sharing(loaded: LoadedModel, gigabytes: float) -> Shared | None:
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
    return Shared(int(gigabytes * 1e9)) if gigabytes else None
