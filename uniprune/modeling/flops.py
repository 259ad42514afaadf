"""Floating-point operations of a prefill, from the shapes of the model's own modules and of their inputs.

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
    """Operation counts of prompts on one model.

    Args:
        adapter: the model's layout; its modules may be on any device, "meta" included.
    """

    def __init__(self, adapter: ModelAdapter) -> None:
        self._adapter = adapter
        self._layers = [(products(layer), width(layer.self_attn)) for layer in adapter.layers]
        self._head = products(adapter.model.get_output_embeddings())
        blocks = adapter.vision_blocks()
        self._blocks = [(products(block), width(adapter.vision_attention(block))) for block in blocks]
        self._projector = products(adapter.projector)
        inside = self._projector * any(module is adapter.projector for module in adapter.vision.modules())
        self._token = sum(map(products, adapter.token_modules))
        self._patch = products(adapter.vision) - sum(block for block, _ in self._blocks) - self._token - inside
        self._image = cache(self._image_cost)

    def prompt(self, images: Iterable[Grid], lengths: Sequence[int]) -> Flops:
        """Count the operations of one prompt's prefill.

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
        """Count the decoder layers on `lengths` tokens each, and the output head on the last one."""
        pairs = zip(self._layers, lengths, strict=True)
        return sum(2 * linear * n + 2 * inner * n * n for (linear, inner), n in pairs) + 2 * self._head

    def _image_cost(self, grid: Grid) -> tuple[int, int]:
        """Count tower and projector on one image."""
        t, h, w = grid
        tower = 2 * (self._patch * self._adapter.merge**2 + self._token) * t * h * w
        for number, (linear, inner) in enumerate(self._blocks):
            spans = self._adapter.attention_spans(grid, number)
            tower += 2 * linear * sum(spans) + 4 * inner * sum(span * span for span in spans)
        return tower, 2 * self._projector * t * h * w


def products(module: Any) -> int:
    """Count the multiply-adds of a module's linear and convolution layers for one token (or embedded patch)."""
    return sum(_weights(part) for part in module.modules())


def width(attention: Any) -> int:
    """Return heads x head size: input width of an attention's output projection, the last of its linear layers."""
    return [part.in_features for part in attention.modules() if isinstance(part, nn.Linear)][-1]


def _weights(part: nn.Module) -> int:
    """Count the elements of a layer's weight, from its declared size: quantised layers pack theirs."""
    if isinstance(part, nn.Linear):
        return part.in_features * part.out_features
    return part.weight.numel() if isinstance(part, (nn.Conv2d, nn.Conv3d)) else 0
