"""A pruner that delegates to another one, and records the scores it reads and the tokens it replaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from uniprune.engine.stage_view import StageView
from uniprune.pruning.base import PreLLM, Pruner, Selection, Stage
from uniprune.pruning.view import TowerLayer, View
from uniprune.pruning.wrapping import WrappingPruner

TOWER = ("importance", "received", "from_others", "cls", "exchanged")
"""Scores of `view.vision` that have a value per token, per head and token, or, of `exchanged`, two per token."""
DECODER = ("attention", "upcoming")
"""Attributes of a view that are attention of a decoder layer."""

SOURCES = {
    "last": "the last token",
    "prompt": "the question",
    "text": "all text tokens",
    "visual": "the visual tokens",
}
"""Rows of attention -> how captions call them."""


@dataclass
class Notes:
    """Records of one method.

    Attributes:
        maps: sample -> (layer, name of a score) -> parts: numbers of tokens, and their values.
        merged: sample -> layer -> numbers of kept tokens that were replaced.
        replaces: whether the method ever returned tokens of its own.
    """

    maps: dict[str, dict[tuple[int, str], list[tuple[Tensor, Tensor]]]] = field(default_factory=dict)
    merged: dict[str, dict[int, list[Tensor]]] = field(default_factory=dict)
    replaces: bool = False

    def heat(self, sample: str, tokens: int) -> dict[tuple[int, str], npt.NDArray[np.float64]]:
        """Return every score by layer and name as [N] over the sample's tokens, NaN where it has none."""
        found = {}
        for key, parts in self.maps.get(sample, {}).items():
            values = np.full(tokens, np.nan)
            for numbers, scores in parts:
                values[numbers.numpy()] = scores.numpy()
            found[key] = values
        return found

    def merged_mask(self, sample: str, layer: int, tokens: int) -> npt.NDArray[np.bool_]:
        """Return [N] True at tokens that were replaced before a layer or an earlier one."""
        mask = np.zeros(tokens, bool)
        for stage, parts in self.merged.get(sample, {}).items():
            for numbers in parts if stage <= layer else []:
                mask[numbers.numpy()] = True
        return mask


@dataclass(frozen=True, kw_only=True)
class Watched(WrappingPruner):
    """A pruner that behaves as `inner` and records its scores.

    Attributes:
        notes: its records.
    """

    notes: Notes = field(default_factory=Notes)

    def __post_init__(self) -> None:
        """Copy the method's kind, too."""
        super().__post_init__()
        object.__setattr__(self, "kind", self.inner.kind)

    @property
    def prompt_aware(self) -> bool:
        """Return whether the method reads the question."""
        return self.inner.prompt_aware

    def after_input(self) -> Pruner:
        """Return the method without that part, recorded in the same notes."""
        rest = self.inner.after_input()
        return self if rest is self.inner else Watched(inner=rest, notes=self.notes)

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """Return the method's stages, recorded; one per pruner, because the engine counts by pruner.

        Stages inside the vision tower have no place in the prompt's tokens yet and are left as they are.
        """
        watched: dict[int, Pruner] = {}
        stages = []
        for stage in self.inner.schedule(num_layers):
            if stage.block is None:
                own = watched.setdefault(id(stage.pruner), Watched(inner=stage.pruner, notes=self.notes))
                stage = dataclasses.replace(stage, pruner=own)
            stages.append(stage)
        return tuple(stages)

    def select(self, view: View, keep: int) -> Tensor | Selection:
        """Return the method's selection and record what led to it."""
        assert isinstance(view, StageView)  # stages after the tower, in which the engine's views know their sample
        numbers = (view.cells.cpu() + view.offset).clone()
        maps = self.notes.maps.setdefault(view.sample, {})

        def note(name: str, values: Tensor) -> None:
            maps.setdefault((view.layer, name), []).append((numbers, values.detach().float().cpu()))

        before = view.tokens.clone()
        view.vision = _WatchedTower(view.vision, note)  # type: ignore[assignment]  # it forwards everything else
        for name in DECODER:
            if getattr(self.inner, {"attention": "llm_attention", "upcoming": "upcoming_attention"}[name]):
                layer = view.layer - (name == "attention")
                setattr(view, name, _WatchedAttention(getattr(view, name), f"attention of layer {layer}", note))
        answer = self.inner.select(view, keep)
        if isinstance(answer, Selection) and answer.tokens is not None:
            self.notes.replaces = True
            changed = (answer.tokens != before[answer.indices]).flatten(1).any(1).cpu()
            parts = self.notes.merged.setdefault(view.sample, {}).setdefault(view.layer, [])
            parts.append(numbers[answer.indices.cpu()[changed]])
        return answer


class _WatchedTower:
    """Vision scores that are recorded when they are read."""

    def __init__(self, scores: Any, note: Callable[[str, Tensor], None]) -> None:
        self._scores, self._note = scores, note

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._scores, name)
        if name not in TOWER:
            return found

        @wraps(found)
        def recorded(*args: Any, **kwargs: Any) -> Tensor:
            values: Tensor = found(*args, **kwargs)
            layer = args[0] if args else kwargs.get("layer")
            where = "" if layer is None else f", block {layer}"
            label = f"{name.replace('_', ' ')} in the vision tower{where}"
            if name == "exchanged":
                for kind, part in zip(("emitted", "received"), values, strict=True):
                    self._note(f"attention {kind} in the vision tower{where}", part)
            else:
                self._note(label, values if values.dim() == 1 else values.mean(0))
            return values

        return recorded


class _WatchedAttention:
    """Attention of a decoder layer that is recorded when it is read."""

    def __init__(self, attention: Any, label: str, note: Callable[[str, Tensor], None]) -> None:
        self._attention, self._label, self._note = attention, label, note

    def __getattr__(self, name: str) -> Any:
        return getattr(self._attention, name)

    def __call__(self, rows: Any) -> Tensor:
        """Return the attention of rows, mean over heads and rows recorded."""
        values: Tensor = self._attention(rows)
        self._note(self._name(rows), values.mean((0, 1)))
        return values

    def blocks(self, rows: Any) -> Iterator[Tensor]:
        """Yield the same for a few rows at a time; recorded once all were read."""
        total, count = None, 0
        for part in self._attention.blocks(rows):
            added = part.mean(0).sum(0)
            total, count = added if total is None else total + added, count + part.shape[1]
            yield part
        if total is not None:
            self._note(self._name(rows), total / count)

    def _name(self, rows: Any) -> str:
        return f"{self._label} from {SOURCES.get(rows, '') if isinstance(rows, str) else 'chosen text tokens'}"


@dataclass(frozen=True, kw_only=True)
class TowerMaps(PreLLM):
    """A method that keeps everything and reads the attention of blocks of the vision tower.

    Attributes:
        blocks: numbers of the blocks, from 0, negative from the end.
    """

    blocks: tuple[int, ...] = ()
    prompt_aware: ClassVar[bool] = False

    @property
    def exact(self) -> bool:
        """Return False: at ratio 1 the engine would not call an exact method."""
        return False

    @property
    def vision_layers(self) -> tuple[TowerLayer, ...]:
        """The blocks."""
        return self.blocks

    def select(self, view: View, keep: int) -> Tensor:
        """Read the maps and keep all tokens."""
        for block in self.blocks:
            view.vision.importance(block)
        return torch.arange(view.total)
