"""Compares an image with all images of the batch."""

from dataclasses import dataclass

import torch

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-mixes-images")
@dataclass(frozen=True, kw_only=True)
class MixesImages(PreLLM):
    """The tokens least like the mean of whatever the vision tower was given."""

    def select(self, view, keep):
        everything = torch.cat(view.vision._call.features())
        return top_k((view.vision.features() - everything.mean(0)).norm(dim=-1), keep)
