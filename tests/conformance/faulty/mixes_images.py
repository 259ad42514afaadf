"""Compares an image with all images of the batch."""

from dataclasses import dataclass

import torch

from uniprune.pruner import PreLLM
from uniprune.registry import register_method
from uniprune.selection import top_k


@register_method("faulty-mixes-images")
@dataclass(frozen=True, kw_only=True)
class MixesImages(PreLLM):
    """The tokens least like the mean of whatever the vision tower was given."""

    def select(self, view, keep):
        everything = torch.cat(view.vision.call.features())
        return top_k((view.vision.features() - everything.mean(0)).norm(dim=-1), keep)
