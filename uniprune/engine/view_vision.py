"""`view.vision`: what the vision tower has at the tokens of one view."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import prod
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.host_copy import sent, to_device
from uniprune.engine.kept_tokens import Ints
from uniprune.engine.stage_groups import StageGroups
from uniprune.engine.tower_quantities import TowerQuantities
from uniprune.engine.vision import Vision
from uniprune.errors import UnsupportedError, UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.origins import Origins
from uniprune.pruning.text_checkpoint import text_checkpoint
from uniprune.pruning.view import TextTower, TowerLayer
from uniprune.pruning.view_batch import BatchVision

T = TypeVar("T")


class ViewVision(TowerQuantities):
    """`view.vision`: the quantities of the tower's work at the tokens of one view.

    Args:
        groups: groups of one size at a stage.
        number: the view's own among them.
    """

    def __init__(self, groups: StageGroups, number: int) -> None:
        self._groups, self._number = groups, number

    def text_tower(self) -> TextTower:
        """Return the question in the space of the tower and of the method's `text_checkpoint`.

        Raises:
            UnsupportedError: the method has none.
            UserError: the question is known by its tokens only.
        """
        adapter, folder = self._call.adapter, text_checkpoint(self._groups.arriving.stage.pruner)
        if folder is None and adapter.has_texts:
            raise UnsupportedError(
                f"checkpoints of {type(adapter).__name__} carry no text tower that belongs to their vision tower; give "
                "the CLIP model that the tower is from (text_checkpoint=FOLDER), compare with the language model's "
                "embeddings of the question (text=llm), or use another method"
            )
        if folder is None:
            return super().text_tower()
        info = self._groups.members[self._number][0].info
        if info.text is None:
            raise UserError(
                f"a text tower reads the question as text, but sample {info.id!r} has none; set PromptInfo.text"
            )
        return adapter.text_tower(folder).read(info.text)

    def project(self, features: Tensor) -> Tensor:
        """Return [k, D] LLM tokens of features [k, C].

        Raises:
            UnsupportedError: tokens of the view are means of projected tokens.
        """
        check_unmixed(self._call.adapter, self._origins)
        return self._call.project(features).to(self._device)

    @property
    def _call(self) -> Vision:
        return _known(self._groups.arriving.vision)

    @property
    def _images(self) -> list[int]:
        return self._place[0]

    @property
    def _origins(self) -> Origins | None:
        return self._groups.members[self._number][1].origins

    @property
    def _device(self) -> torch.device:
        return self._groups.arriving.device

    def _of_view(self, values: list[Tensor]) -> Tensor:
        """Return [N, C] at the tokens of the view."""
        images, places = self._place
        every = values[images[0]] if len(images) == 1 else torch.cat([values[i] for i in images])
        known, share = self._groups.source_cells, _known(self._origins).share
        if known is not None:
            own = places[known[self._number]]
            first = own[0, 0] if len(own) else 0
            if share is None and np.array_equal(own[:, 0], np.arange(first, first + len(own))):
                return every[first : first + len(own)].clone().to(self._device)
            at = sent(own, every.device)
            shares = None if share is None else sent(share.numpy()[known[self._number]], every.device)
        else:
            chosen = to_device(self._groups.cells[self._number], every.device)
            at = sent(places, every.device)[chosen]
            shares = None if share is None else to_device(share, every.device)[chosen]
        return _means(every, at, shares).to(self._device)

    @cached_property
    def _place(self) -> tuple[list[int], Ints]:
        """Images of the call that the view's tokens come from, and [U, k] each token's index in these images joined."""
        index, stops = _known(self._origins).index.numpy(), np.cumsum(list(map(prod, self._call.grids)))
        number = np.searchsorted(stops, index, side="right")
        images = np.unique(number)
        sizes = np.diff(stops, prepend=0)
        sizes[images] = 0
        return images.tolist(), index - sizes.cumsum()[number]


class GroupsVision(BatchVision):
    """The same of token groups of one size, gathered for all of them at once.

    Args:
        groups: the groups.
        parts: `ViewVision` of each.
    """

    def __init__(self, groups: StageGroups, parts: Sequence[ViewVision]) -> None:
        super().__init__(parts)
        self._groups, self._own = groups, tuple(parts)

    def importance(self, layer: TowerLayer = None, joint: bool = False) -> Tensor:
        """Return [P, N]."""
        if not self.has_cls:
            return self.received(layer)
        return self._tokens("joint_cls" if joint else "cls", layer).mean(-1)

    def received(self, layer: TowerLayer = None) -> Tensor:
        """Return [P, N]."""
        return self._tokens("received", layer)[..., 0]

    def exchanged(self, layer: int | None = None) -> Tensor:
        """Return [P, 2, N]."""
        return self._tokens("exchanged", layer).transpose(1, 2)

    def cls(self, layer: int | None = None) -> Tensor:
        """Return [P, heads, N]."""
        return self._tokens("cls", layer).transpose(1, 2)

    def keys(self, layer: int | None = None, head_mean: bool = False) -> Tensor:
        """Return [P, N, C]."""
        return self._tokens("head_mean_keys" if head_mean else "keys", layer)

    def hidden(self, layer: int | None = None) -> Tensor:
        """Return [P, N, C]."""
        return self._tokens("hidden", layer)

    def features(self) -> Tensor:
        """Return [P, N, C]."""
        return self._of_groups(self._call.features())

    def project(self, features: Tensor) -> Tensor:
        """Return [P, k, D] for features [P, k, C]."""
        for _, group in self._groups.members:
            check_unmixed(self._call.adapter, group.origins)
        projected: Tensor = self._call.project(features.flatten(0, 1)).to(self._groups.arriving.device)
        return projected.view(*features.shape[:2], projected.shape[-1])

    @property
    def _call(self) -> Vision:
        return _known(self._groups.arriving.vision)

    def _tokens(self, name: str, layer: TowerLayer) -> Tensor:
        return self._of_groups(self._call.quantity(name, layer))

    def _of_groups(self, values: list[Tensor]) -> Tensor:
        """Return [P, N, C] at the tokens of the groups."""
        if self._at is None:
            return torch.stack([part._of_view(values) for part in self._own])
        every, device = values[0] if len(values) == 1 else torch.cat(values), self._groups.arriving.device
        if self._whole and self._at.size == len(every):
            own = every.clone() if every is values[0] else every
            return own.view(*self._at.shape, -1).to(device)
        return every[sent(self._at, every.device)].to(device)

    @cached_property
    def _at(self) -> Ints | None:
        """[P, N] each token's index in the images of the call; None if not every one is one known token."""
        origins, known = [_known(group.origins) for _, group in self._groups.members], self._groups.source_cells
        if any(one.share is not None for one in origins) or known is None:
            return None
        return np.stack([one.index.numpy()[cells, 0] for one, cells in zip(origins, known, strict=True)])

    @cached_property
    def _whole(self) -> bool:
        """Return whether these are the first tokens of the call, in order."""
        return self._at is not None and bool((self._at.ravel() == np.arange(self._at.size)).all())


def _means(every: Tensor, at: Tensor, shares: Tensor | None) -> Tensor:
    """Return [N, C] the means of tokens `at` [N, k] of `every` [M, C] with `shares` [N, k]; None if k is 1."""
    if shares is None:
        return every[at[:, 0]]
    pairs = zip((every[own] for own in at.unbind(1)), shares.unbind(1), strict=True)
    weighed = (part.float() * share[:, None] for part, share in pairs)
    return sum(weighed, torch.zeros(())).to(every.dtype)


def check_unmixed(adapter: ModelAdapter, origins: Origins | None) -> None:
    """Refuse to project features of tokens that are means of projected tokens.

    Raises:
        UnsupportedError: some are.
    """
    known = _known(origins)
    if mixed := known.mixed:
        raise UnsupportedError(
            f"{type(adapter).__name__} averages tokens after its projector: {mixed} of these {len(known)} visual "
            "tokens are means of up to four, which no feature of the tower becomes when it is projected; merge what "
            "the language model gets (space=llm), or use another method"
        )


def _known(value: T | None) -> T:
    if value is None:
        raise UnsupportedError(
            "the image features were computed outside this session, so nothing is known about the vision tower; "
            "pass pixel values, or use a method without vision scores"
        )
    return value
