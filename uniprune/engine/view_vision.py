"""`view.vision`: what the vision tower has at the tokens of one view."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TypeVar

import torch
from torch import Tensor

from uniprune.engine.compaction import to_device
from uniprune.engine.token_groups import image_of
from uniprune.engine.vision import Vision
from uniprune.errors import UnsupportedError
from uniprune.modeling.origins import Origins

T = TypeVar("T")


@dataclass(frozen=True)
class ViewVision:
    """`view.vision`: the quantities of the tower's work at the tokens of one view.

    Attributes:
        call: the tower's work, None if the features were computed outside the session.
        origins: tokens of that work that form the U cells of the view's grids, on the CPU; None if unknown.
        cells: [N] cells of the surviving tokens in the concatenated grids, on the CPU.
        device: device of the results.
    """

    call: Vision | None
    origins: Origins | None
    cells: Tensor
    device: torch.device

    @property
    def patches(self) -> int:
        """Vision patches per token."""
        grid = self._call.grids[self._place[0][0]]
        return self._call.adapter.patches(grid) // prod(grid)

    def importance(self, layer: int | None = None, joint: bool = False) -> Tensor:
        """Return [N] CLS attention (mean over heads, or one joint head); received attention without a CLS token."""
        if not self._call.adapter.has_cls:
            return self.received(layer)
        return self._tokens("joint_cls" if joint else "cls", layer).mean(-1)

    def received(self, layer: int | None = None) -> Tensor:
        """Return [N] attention each token receives, mean over heads and queries."""
        return self._tokens("received", layer)[:, 0]

    def exchanged(self, layer: int | None = None) -> Tensor:
        """Return [2, N] mean attention each token emits to and receives from patches, mean over heads."""
        return self._tokens("exchanged", layer).T

    def cls(self, layer: int | None = None) -> Tensor:
        """Return [heads, N] attention of the CLS query.

        Raises:
            UnsupportedError: the tower has no CLS token.
        """
        return self._tokens("cls", layer).T

    def cls_tokens(self, layer: int | None = None) -> Tensor:
        """Return [images, C] CLS states leaving the layer.

        Raises:
            UnsupportedError: the tower has no CLS token, or it cannot be projected.
        """
        if self.patches > 1:
            raise UnsupportedError(
                f"the projector of {type(self._call.adapter).__name__} takes {self.patches} patches at a time, so a "
                "single CLS token cannot be projected; leave it out"
            )
        return self._call.cls_tokens(layer)[self._place[0]].to(self.device)

    def keys(self, layer: int | None = None, head_mean: bool = False) -> Tensor:
        """Return [N, C] key vectors, rotated where the tower rotates them; heads side by side or averaged."""
        return self._tokens("head_mean_keys" if head_mean else "keys", layer)

    def hidden(self, layer: int | None = None) -> Tensor:
        """Return [N, C] hidden states entering the layer."""
        return self._tokens("hidden", layer)

    def features(self) -> Tensor:
        """Return [N, C] inputs of the projector, the patches of a token side by side."""
        return self._of_view(self._call.features())

    def project(self, features: Tensor) -> Tensor:
        """Return [k, D] LLM tokens of features [k, C].

        Raises:
            UnsupportedError: tokens of the view are means of projected tokens.
        """
        origins = _known(self.origins)
        if mixed := origins.mixed:
            raise UnsupportedError(
                f"{type(self._call.adapter).__name__} averages tokens after its projector: {mixed} of these "
                f"{len(origins)} visual tokens are means of up to four, which no feature of the tower becomes when it "
                "is projected; merge what the language model gets (space=llm), or use another method"
            )
        return self._call.project(features).to(self.device)

    @property
    def _call(self) -> Vision:
        return _known(self.call)

    def _tokens(self, name: str, layer: int | None) -> Tensor:
        return self._of_view(self._call.quantity(name, layer))

    def _of_view(self, values: list[Tensor]) -> Tensor:
        """Return [N, C], the mean over the tokens that each cell is made of."""
        images, places = self._place
        every = values[images[0]] if len(images) == 1 else torch.cat([values[i] for i in images])
        parts = [every[to_device(place, every.device)] for place in places[self.cells].unbind(1)]
        shares = _known(self.origins).share
        if shares is None:
            return parts[0].to(self.device)
        pairs = zip(parts, to_device(shares[self.cells], every.device).unbind(1), strict=True)
        weighed = (part.float() * share[:, None] for part, share in pairs)
        return sum(weighed, torch.zeros(())).to(self.device, every.dtype)

    @cached_property
    def _place(self) -> tuple[list[int], Tensor]:
        """Images of the call that the view's tokens come from, and [U, k] each token's index in these images joined."""
        index, sizes = _known(self.origins).index, torch.tensor(list(map(prod, self._call.grids)))
        number = image_of(index, self._call.grids)
        images = number.unique()
        left_out = sizes.clone()
        left_out[images] = 0
        return images.tolist(), index - left_out.cumsum(0)[number]


def _known(value: T | None) -> T:
    if value is None:
        raise UnsupportedError(
            "the image features were computed outside this session, so nothing is known about the vision tower; "
            "pass pixel values, or use a method without vision scores"
        )
    return value
