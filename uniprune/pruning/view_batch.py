"""Views of one pruning point that are decided together: the same quantities, with a leading dimension of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from uniprune.pruning.view import Attention, Rows, Space, TowerLayer, View, VisionScores

BatchRows = Rows | Sequence[Tensor]
"""Query rows of every view: a name, or one tensor of as many indices per view."""


class ViewBatch:
    """P views with equally many tokens N, decided together; see `Pruner.select_batch`.

    This class stacks the quantities of its views when they are first read, so it works with views made by hand. The
    engine passes a subclass that gathers them for all views at once. What differs in size from view to view is a list.

    Args:
        views: at least one, with equally many tokens.

    Attributes:
        views: as given.

    Raises:
        ValueError: the views differ in the number of tokens, or there are none.
    """

    def __init__(self, views: Sequence[View]) -> None:
        self.views = tuple(views)
        if len({self.count(view) for view in self.views}) != 1:
            raise ValueError(f"views of a batch need equally many tokens, got {[self.count(v) for v in self.views]}")

    @staticmethod
    def count(view: View) -> int:
        """Return N of a view."""
        return len(view.tokens)

    def __len__(self) -> int:
        """Return P."""
        return len(self.views)

    @cached_property
    def tokens(self) -> Tensor:
        """[P, N, D]."""
        return torch.stack([view.tokens for view in self.views])

    @cached_property
    def cells(self) -> Tensor:
        """[P, N]."""
        return torch.stack([view.cells for view in self.views])

    @cached_property
    def prompt(self) -> list[Tensor]:
        """[M, D] per view."""
        return [view.prompt for view in self.views]

    @cached_property
    def text(self) -> list[Tensor]:
        """[T, D] per view."""
        return [view.text for view in self.views]

    @cached_property
    def following(self) -> list[Tensor]:
        """[F] per view.

        Raises:
            UserError: no text follows the tokens of a view.
        """
        return [view.following for view in self.views]

    @cached_property
    def generators(self) -> list[torch.Generator]:
        """One CPU generator per view."""
        return [view.generator for view in self.views]

    @cached_property
    def vision(self) -> BatchVision:
        """Quantities of the vision tower."""
        return BatchVision([view.vision for view in self.views])

    @cached_property
    def attention(self) -> BatchAttention:
        """Attention of layer K - 1."""
        return BatchAttention([view.attention for view in self.views])

    @cached_property
    def upcoming(self) -> BatchAttention:
        """Attention of layer K."""
        return BatchAttention([view.upcoming for view in self.views])

    @cached_property
    def seen(self) -> list[Tensor]:
        """[P, N, ...] per look so far."""
        return [torch.stack(rows) for rows in zip(*(view.seen for view in self.views), strict=True)]

    def features(self, space: Space) -> Tensor:
        """Return the tokens' features [P, N, C]; see `View.features`."""
        return self.vision.features() if space == "vision" else self.tokens

    def project(self, features: Tensor, space: Space) -> Tensor:
        """Return replacement tokens [P, k, D] for features [P, k, C] of that space."""
        return self.vision.project(features) if space == "vision" else features


class BatchVision:
    """`VisionScores` of several views: every quantity with a leading dimension of views.

    Args:
        parts: those of the views, in their order.
    """

    def __init__(self, parts: Sequence[VisionScores]) -> None:
        self.parts = tuple(parts)

    @property
    def patches(self) -> int:
        """Vision patches per token, the same in all views."""
        return self.parts[0].patches

    @property
    def has_cls(self) -> bool:
        """Return whether the tower has a CLS token."""
        return self.parts[0].has_cls

    def importance(self, layer: TowerLayer = None, joint: bool = False) -> Tensor:
        """Return [P, N]."""
        return self._stacked(lambda one: one.importance(layer, joint))

    def received(self, layer: TowerLayer = None) -> Tensor:
        """Return [P, N]."""
        return self._stacked(lambda one: one.received(layer))

    def exchanged(self, layer: int | None = None) -> Tensor:
        """Return [P, 2, N]."""
        return self._stacked(lambda one: one.exchanged(layer))

    def cls(self, layer: int | None = None) -> Tensor:
        """Return [P, heads, N]."""
        return self._stacked(lambda one: one.cls(layer))

    def cls_tokens(self, layer: int | None = None) -> list[Tensor]:
        """Return [images, C] per view."""
        return [one.cls_tokens(layer) for one in self.parts]

    def keys(self, layer: int | None = None, head_mean: bool = False) -> Tensor:
        """Return [P, N, C]."""
        return self._stacked(lambda one: one.keys(layer, head_mean))

    def hidden(self, layer: int | None = None) -> Tensor:
        """Return [P, N, C]."""
        return self._stacked(lambda one: one.hidden(layer))

    def features(self) -> Tensor:
        """Return [P, N, C]."""
        return self._stacked(lambda one: one.features())

    def project(self, features: Tensor) -> Tensor:
        """Return [P, k, D] for features [P, k, C]."""
        return torch.stack([one.project(own) for one, own in zip(self.parts, features, strict=True)])

    def _stacked(self, quantity: Callable[[VisionScores], Tensor]) -> Tensor:
        return torch.stack([quantity(one) for one in self.parts])


class BatchAttention:
    """`Attention` of several views: [P, heads, R, N]. `rows` must name equally many rows in every view.

    Args:
        parts: those of the views, in their order.
    """

    def __init__(self, parts: Sequence[Attention]) -> None:
        self.parts = tuple(parts)

    def __call__(self, rows: BatchRows) -> Tensor:
        """Return [P, heads, R, N] probabilities; see `uniprune.pruning.view.Attention`."""
        return torch.stack([one(own) for one, own in self._each(rows)])

    def keys(self, rows: BatchRows) -> Tensor:
        """Return [P, R, key heads * d]."""
        return torch.stack([one.keys(own) for one, own in self._each(rows)])

    def rotary_prior(self, rows: BatchRows) -> Tensor:
        """Return [P, R, N]."""
        return torch.stack([one.rotary_prior(own) for one, own in self._each(rows)])

    def _each(self, rows: BatchRows) -> list[tuple[Attention, Rows | Tensor]]:
        if isinstance(rows, str):
            return [(one, rows) for one in self.parts]
        return list(zip(self.parts, rows, strict=True))
