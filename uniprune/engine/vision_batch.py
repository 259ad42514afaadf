"""Image features that several prompts and methods share: encoded once, passed to many prefills."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from uniprune.engine.kept_tokens import Bools
from uniprune.engine.vision import DEEPSTACK, Vision, VisionCapture
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.image_layout import ImageLayout
from uniprune.modeling.tower_work import TowerWork
from uniprune.pruning.view import Grid, TowerLayer


def latest(adapter: ModelAdapter, calls: Sequence[VisionCapture], outputs: Sequence[Any]) -> Vision | None:
    """Return the calls of the tower that made these features, in their order; None if one was made elsewhere."""
    made = [next((call for call in calls if call.output is output), None) for output in outputs]
    known = [call for call in made if call is not None]
    if len(known) < len(made):
        return None
    return known[0] if len(known) == 1 else VisionBatch(adapter, known, None)


@dataclass(frozen=True)
class VisionBatch:
    """Several calls of the tower, read as if they had been one call on all their images.

    Attributes:
        adapter: the model's adapter.
        calls: in the order of the images.
        output: the features passed to the model.
    """

    adapter: ModelAdapter
    calls: Sequence[VisionCapture]
    output: Any

    @property
    def grids(self) -> list[Grid]:
        """(t, h, w) per image or tile."""
        return [grid for call in self.calls for grid in call.grids]

    @cached_property
    def layouts(self) -> list[ImageLayout] | None:
        """The encoded images in prompt order; None if those of a call are unknown."""
        found, tokens = list[ImageLayout](), 0
        for call in self.calls:
            if call.layouts is None:
                return None
            found += [layout.moved(tokens) for layout in call.layouts]
            tokens += sum(map(prod, call.grids))
        return found

    @property
    def kept(self) -> Bools | None:
        """See `VisionCapture.kept`; None if a call dropped nothing."""
        kept = [call.kept for call in self.calls]
        return None if any(one is None for one in kept) else np.concatenate([one for one in kept if one is not None])

    @property
    def work(self) -> list[TowerWork] | None:
        """See `VisionCapture.work`."""
        work = [call.work for call in self.calls]
        return None if any(one is None for one in work) else [each for one in work if one is not None for each in one]

    def quantity(self, name: str, layer: TowerLayer) -> list[Tensor]:
        """See `VisionCapture.quantity`."""
        return list(chain.from_iterable(call.quantity(name, layer) for call in self.calls))

    def features(self) -> list[Tensor]:
        """See `VisionCapture.features`."""
        return list(chain.from_iterable(call.features() for call in self.calls))

    def project(self, features: Tensor) -> Tensor:
        """See `VisionCapture.project`."""
        return self.calls[0].project(features)

    def cls_tokens(self, layer: int | None) -> Tensor:
        """See `VisionCapture.cls_tokens`."""
        return torch.cat([call.cls_tokens(layer) for call in self.calls])


def supports_sharing(model: Any) -> bool:
    """Check whether `generate` accepts features in place of pixels, as transformers does since 5.23."""
    return "mm_encoder_outputs" in inspect.signature(model.forward).parameters


def encode(adapter: ModelAdapter, visual: dict[str, Tensor]) -> Any:
    """Return the features of images, as the model itself computes them from its visual inputs."""
    known = inspect.signature(adapter.base.get_image_features).parameters
    return adapter.base.get_image_features(**{k: v for k, v in visual.items() if k in known}, return_dict=True)


def join(outputs: Sequence[Any]) -> Any:
    """Join the features of several calls into those of one call on all images: only what a forward reads of them."""
    pooled = [output.pooler_output for output in outputs]
    together = torch.cat(pooled) if isinstance(pooled[0], Tensor) else tuple(chain.from_iterable(pooled))
    joined = BaseModelOutputWithPooling(pooler_output=together)
    levels = [getattr(output, DEEPSTACK, None) for output in outputs]
    if levels[0] is not None:  # per level, [N, D] per image
        setattr(joined, DEEPSTACK, [tuple(chain.from_iterable(level)) for level in zip(*levels, strict=True)])
    return joined
