"""Small pruners that exercise every path of the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from uniprune.methods.fastv import FastV
from uniprune.methods.mustdrop import MustDrop
from uniprune.methods.random_intra import RandomIntra
from uniprune.methods.random_pre import RandomPre
from uniprune.methods.sparsevlm import SparseVLM
from uniprune.methods.visionzip import VisionZip
from uniprune.pruning.base import Pruner, Selection, Stage
from uniprune.pruning.view import View


@dataclass(frozen=True, kw_only=True)
class Plan(Pruner):
    """Before layer K, keep a random `plan[K]` of each group's *initial* tokens, in random order; 0 drops them all."""

    plan: dict[int, float] = field(default_factory=dict)
    exact: ClassVar[bool] = False
    prompt_aware: ClassVar[bool] = True

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        return tuple(Stage(layer, 1.0, self) for layer in self.plan)

    def select(self, view: View, keep: int) -> Tensor | Selection:
        count = round(self.plan[view.layer] * view.initial)
        return torch.randperm(len(view.tokens), generator=view.generator)[:count]


@dataclass(frozen=True, kw_only=True)
class Probe(Plan):
    """A plan that also calls `look(view)` and stores the result in `seen[layer, number of the call]`."""

    look: Callable[[View], Any]
    llm: bool = False
    layers: tuple[int | None, ...] = ()
    seen: dict[tuple[int, int], Any] = field(default_factory=dict)

    @property
    def llm_attention(self) -> bool:  # type: ignore[override]
        return self.llm

    @property
    def vision_layers(self) -> tuple[int | None, ...]:
        return self.layers

    def select(self, view: View, keep: int) -> Tensor | Selection:
        call = sum(layer == view.layer for layer, _ in self.seen)
        self.seen[view.layer, call] = self.look(view)
        return super().select(view, keep)


@dataclass(frozen=True, kw_only=True)
class FixedAnswer(Pruner):
    """A pruner that returns `answer(view, keep)`, right or wrong."""

    answer: Callable[[View, int], Any]
    ratio: float = 0.5

    def select(self, view: View, keep: int) -> Any:
        return self.answer(view, keep)


def generate(model: Any, x: dict[str, Tensor], steps: int = 10, **options: Any) -> tuple[Tensor, Tensor]:
    """Return greedy new tokens [B, steps] and their logits [B, steps, V]."""
    settings = {"do_sample": False, "max_new_tokens": steps, "return_dict_in_generate": True, "output_logits": True}
    out = model.generate(**x, **settings | options)
    return out.sequences[:, x["input_ids"].shape[1] :], torch.stack(out.logits, 1)


def hooks_on(model: torch.nn.Module) -> int:
    """Count the hooks anywhere in the model."""
    return sum(
        len(m._forward_pre_hooks) + len(m._forward_hooks) + len(m._forward_hooks_always_called) for m in model.modules()
    )


KINDS: dict[str, Pruner] = {
    "pre": RandomPre(ratio=0.34),
    "compact": RandomPre(ratio=0.34, positions="compact"),
    "merging before": VisionZip(ratio=0.34),
    "intra": RandomIntra(ratio=0.34),
    "attention": FastV(ratio=0.34),
    "merging inside": SparseVLM(ratio=0.34),
    "both": RandomPre(ratio=0.5) >> RandomIntra(ratio=0.3, layer=3),
    "evicting": MustDrop(ratio=0.34),
}
"""One method for each way of changing a prompt."""
