"""The part that all models of this package share: their images are pruned after the projector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from uniprune.modeling.adapter import ModelAdapter
from uniprune.pruning.base import Pruner
from uniprune.pruning.view import Grid
from uniprune_vllm.choosing import Chooser
from uniprune_vllm.positions import MovedPositions, with_offsets
from uniprune_vllm.settings import has_axes, method_of
from uniprune_vllm.telemetry import Spans
from uniprune_vllm.towers import Tower


class PrunedImages(MovedPositions):
    """Part of a model of vLLM.

    Attributes:
        adapter: makes the adapter of the model's vision tower.
        chooser: the method.
        tower: the vision tower, watched where the method reads it.
        spans: times of tower and selection.
    """

    adapter: ClassVar[type[ModelAdapter]]
    supported_video_pruning_methods = ("evs",)
    chooser: Chooser
    tower: Tower
    spans: Spans
    config: Any
    get_language_model: Callable[[], Any]

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]  # vLLM's model
        self.placeholder = self.config.image_token_id
        self.tower, self.spans = Tower(), Spans()
        self.use(method_of(self.config))

    def use(self, pruner: Pruner) -> None:
        """Prune by a method from now on; what was cached is not forgotten."""
        self.tower.release()
        self.chooser = Chooser(pruner, self.config.get_text_config().num_hidden_layers)
        self.tower = Tower.of(self.adapter, self, pruner)

    def pruned(
        self, images: Sequence[Tensor], grids: Sequence[Sequence[Grid]], questions: Sequence[Tensor] | None
    ) -> tuple[Tensor, ...]:
        """Return per image what the language model gets: [k, D], or [k, D + 4] with offsets where these are carried.

        Args:
            images: [N, D] tokens of each.
            grids: (t, h, w) of the tiles of each.
            questions: tokens of the question to each, for a method that reads it.
        """
        with self.spans.measure("selection", images=len(images)):
            return self._pruned(images, grids, questions)

    def _pruned(
        self, images: Sequence[Tensor], grids: Sequence[Sequence[Grid]], questions: Sequence[Tensor] | None
    ) -> tuple[Tensor, ...]:
        first, found = 0, []
        for number, (tokens, tiles) in enumerate(zip(images, grids, strict=True)):
            prompt = None if questions is None else self._embedded(questions[number].to(tokens.device))
            kept = self.chooser.keep(tokens, tiles, self.tower.image(first, len(tiles)), prompt)
            first += len(tiles)
            moved = self.chooser.pruner.positions != "compact"
            found.append(with_offsets(kept.tokens, self._offsets(kept.cells, tiles[0])) if moved else kept.tokens)
        self.tower.forget()
        return tuple(found)

    def _embedded(self, ids: Tensor) -> Tensor:
        """Return [M, D] embeddings of tokens [M]."""
        embeddings: Tensor = self.get_language_model().embed_input_ids(ids)
        return embeddings

    def _offsets(self, cells: Tensor, grid: Grid) -> Tensor:
        """Return [k, 2] places of cells behind the start of their image: row and column, or twice the number."""
        if has_axes(self.config):
            return torch.stack((cells // grid[2], cells % grid[2]), dim=1)
        return cells[:, None].expand(-1, 2)
