"""Quantities of a vision tower that methods read, for the images of one view, wherever the tower ran."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod

import torch
from torch import Tensor

from uniprune.engine.vision import Vision
from uniprune.errors import UnsupportedError
from uniprune.pruning.view import TextTower, TowerLayer


class TowerQuantities(ABC):
    """`uniprune.pruning.view.VisionScores` of the tokens of one view; subclasses know which tokens these are."""

    @property
    @abstractmethod
    def _call(self) -> Vision:
        """The tower's work."""

    @property
    @abstractmethod
    def _images(self) -> list[int]:
        """Images, or tiles, of that work from which the view's tokens come."""

    @property
    @abstractmethod
    def _device(self) -> torch.device:
        """The device of the view."""

    @abstractmethod
    def _of_view(self, values: list[Tensor]) -> Tensor:
        """Return [N, C] at the tokens of the view, of values [M, C] per image of the work."""

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """Return [k, D] LLM tokens of features [k, C]."""

    @property
    def patches(self) -> int:
        """Vision patches per token."""
        grid = self._call.grids[self._images[0]]
        return self._call.adapter.patches(grid) // prod(grid)

    @property
    def has_cls(self) -> bool:
        """Return whether the tower has a CLS token."""
        return self._call.adapter.has_cls

    def importance(self, layer: TowerLayer = None, joint: bool = False) -> Tensor:
        """Return [N] CLS attention (mean over heads, or one joint head); received attention without a CLS token."""
        if not self.has_cls:
            return self.received(layer)
        return self._tokens("joint_cls" if joint else "cls", layer).mean(-1)

    def received(self, layer: TowerLayer = None) -> Tensor:
        """Return [N] attention each token receives, mean over heads and queries."""
        return self._tokens("received", layer)[:, 0]

    def from_others(self, layer: TowerLayer = None) -> Tensor:
        """Return [N] attention each token receives from other patches, mean over heads and these."""
        return self._tokens("from_others", layer)[:, 0]

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
        return self._call.cls_tokens(layer)[self._images].to(self._device)

    def keys(self, layer: int | None = None, head_mean: bool = False) -> Tensor:
        """Return [N, C] key vectors, rotated where the tower rotates them; heads side by side or averaged."""
        return self._tokens("head_mean_keys" if head_mean else "keys", layer)

    def hidden(self, layer: int | None = None) -> Tensor:
        """Return [N, C] hidden states entering the layer."""
        return self._tokens("hidden", layer)

    def features(self) -> Tensor:
        """Return [N, C] inputs of the projector, the patches of a token side by side."""
        return self._of_view(self._call.features())

    def text_tower(self) -> TextTower:
        """Refuse.

        Raises:
            UnsupportedError: always, unless a subclass knows one.
        """
        raise UnsupportedError(
            f"checkpoints of {type(self._call.adapter).__name__} carry no text tower that belongs to their vision "
            "tower; compare with the language model's embeddings of the question (text=llm), or use another method"
        )

    def _tokens(self, name: str, layer: TowerLayer) -> Tensor:
        return self._of_view(self._call.quantity(name, layer))
