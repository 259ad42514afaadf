"""Floating-point operations of a prefill, from the shapes of the model's own modules and of what passed through them.

Counted are matrix products, two operations per multiply-add: linear and convolution layers, and attention over the
positions that attend to each other (half of them in the causal decoder, one window at a time in windowed towers). The
output head runs on the last token only, as in generation. Not counted: norms, activations, softmax, rotary embeddings
(together below one percent of a real model), padding, and what the method itself computes, which is timed instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from torch import nn

from uniprune.modeling.adapter import ModelAdapter
from uniprune.pruning.view import Grid
from uniprune.results.measurements import Flops


class CostModel:
    """What one prompt costs a model.

    Args:
        family: the model's layout; its modules may be on any device, "meta" included.
    """

    def __init__(self, family: ModelAdapter) -> None:
        self._family = family
        self._layers = [(products(layer), width(layer.self_attn)) for layer in family.layers]
        self._head = products(family.model.get_output_embeddings())
        blocks = family.vision_blocks()
        self._blocks = [(products(block), width(family.vision_attention(block))) for block in blocks]
        self._projector = products(family.projector)
        inside = self._projector * any(module is family.projector for module in family.vision.modules())
        self._patch = products(family.vision) - sum(block for block, _ in self._blocks) - inside
        self._image = cache(self._image_cost)

    def prompt(self, images: Iterable[Grid], lengths: Sequence[int]) -> Flops:
        """The prefill of one prompt.

        Args:
            images: (t, h, w) in LLM tokens of every image or tile.
            lengths: tokens of any kind entering each decoder layer.
        """
        each = [self._image(grid) for grid in images]
        return Flops(
            vision=sum(tower for tower, _ in each),
            projector=sum(projector for _, projector in each),
            llm=self.decoder(lengths),
        )

    def decoder(self, lengths: Sequence[int]) -> int:
        """Decoder layers on `lengths` tokens each, and the output head on the last one."""
        pairs = zip(self._layers, lengths, strict=True)
        return sum(2 * linear * n + 2 * inner * n * n for (linear, inner), n in pairs) + 2 * self._head

    def _image_cost(self, grid: Grid) -> tuple[int, int]:
        """Tower and projector on one image."""
        t, h, w = grid
        tower = 2 * self._patch * t * h * w * self._family.merge**2
        for number, (linear, inner) in enumerate(self._blocks):
            spans = self._family.attention_spans(grid, number)
            tower += 2 * linear * sum(spans) + 4 * inner * sum(span * span for span in spans)
        return tower, 2 * self._projector * t * h * w


def products(module: Any) -> int:
    """Multiply-adds of a module's linear and convolution layers for one token (for one patch, where they embed one)."""
    return sum(_weights(part) for part in module.modules())


def width(attention: Any) -> int:
    """Heads x head size: what an attention's output projection, the last of its linear layers, takes in."""
    return [part.in_features for part in attention.modules() if isinstance(part, nn.Linear)][-1]


def _weights(part: nn.Module) -> int:
    """Elements of a layer's weight; from its declared size, since quantised layers pack theirs."""
    if isinstance(part, nn.Linear):
        return part.in_features * part.out_features
    return part.weight.numel() if isinstance(part, (nn.Conv2d, nn.Conv3d)) else 0
