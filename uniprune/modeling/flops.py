"""Floating-point operations of a prefill, from the shapes of the model's own modules and of their inputs.

Counted are matrix products, two operations per multiply-add: linear and convolution layers, and attention over the
positions that attend to each other (half of them in the causal decoder, one window at a time in windowed towers and
layers). Linear attention counts what its recurrence does for a token: kernels that compute it in chunks do a little
more. The output head runs on the last token only, as in generation. Of a layer's experts those count that a token is
routed to, beside the router and the shared experts. Not counted: norms, activations, softmax, rotary embeddings
(together below one percent of a real model), padding, and what the method itself computes, which is timed instead.
A model with a matrix of another kind is refused: it would count as nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.context import reusing_layers
from uniprune.modeling.tower_work import TowerWork, WholeImage
from uniprune.pruning.view import Grid
from uniprune.results.measurements import Flops

NONE: Mapping[str, bool] = MappingProxyType({})
EXPERTS = {"gate_up_proj", "gate_proj", "up_proj", "down_proj"}
"""Names of the tensors that hold a layer's experts."""


class CostModel:
    """Operation counts of prompts on one model.

    Args:
        adapter: the model's layout; its modules may be on any device, "meta" included.

    Raises:
        UnsupportedError: the model has weights whose products are unknown.
    """

    def __init__(self, adapter: ModelAdapter) -> None:
        self._adapter = adapter
        routed, bare = experts_per_token(adapter.decoder.config), adapter.bare_weights
        self._layers = [decoder_layer(layer, routed) for layer in adapter.layers]
        outside = [part for part in adapter.decoder.children() if part is not adapter.decoder.layers]
        self._entry = sum(map(products, outside))
        self._reusing = reusing_layers(adapter.decoder.config)
        self._head = products(adapter.model.get_output_embeddings())
        blocks = adapter.vision_blocks()
        self._blocks = [
            (products(block), products(attention), width(attention))
            for block in blocks
            for attention in [adapter.vision_attention(block)]
        ]
        self._projector = products(adapter.projector, bare=bare)
        inside = self._projector * any(module is adapter.projector for module in adapter.vision.modules())
        self._parts = list(zip(map(products, adapter.token_parts()), adapter.part_blocks(), strict=True))
        once = sum(block for block, *_ in self._blocks) + sum(part for part, _ in self._parts) + inside
        self._patch = products(adapter.vision, bare=bare) - once
        self._image = cache(self._image_cost)

    def prompt(
        self,
        images: Iterable[Grid],
        lengths: Sequence[int],
        pairs: Sequence[float] | None = None,
        tokens: int | None = None,
        work: Sequence[TowerWork] | None = None,
    ) -> Flops:
        """Count the operations of one prompt's prefill.

        Args:
            images: (t, h, w) in LLM tokens of every image or tile.
            lengths: tokens of any kind entering each decoder layer.
            pairs: pairs of them that attend to each other, where a token counts half with itself; half of all by
                default, as in layers without a window.
            tokens: those of the un-pruned prompt; as many as enter the first layer by default.
            work: of the tower on every image, where it drops or merges tokens.
        """
        grids = list(images)
        works: Sequence[TowerWork] = work or [WholeImage()] * len(grids)
        each = [self._image(grid, one) for grid, one in zip(grids, works, strict=True)]
        return Flops(
            vision=sum(tower for tower, _ in each),
            projector=sum(projector for _, projector in each),
            llm=self.decoder(lengths, [n * n / 2 for n in lengths] if pairs is None else pairs)
            + 2 * self._entry * (lengths[0] if tokens is None else tokens),
        )

    def decoder(self, lengths: Sequence[int], pairs: Sequence[float]) -> int:
        """Count the decoder layers on `lengths` tokens and `pairs` of them, and the output head on the last one.

        Layers that reuse keys of earlier ones run on the last token only, too.
        """
        count = 2 * self._head
        for number, ((linear, inner), n, pair) in enumerate(zip(self._layers, lengths, pairs, strict=True)):
            count += 2 * linear * (1 if number in self._reusing else n) + round(4 * inner * pair)
        return count

    def _image_cost(self, grid: Grid, work: TowerWork) -> tuple[int, int]:
        """Count tower and projector on one image; after the last block all its places are left."""
        adapter, tokens = self._adapter, math.prod(grid)
        tower = 2 * self._patch * adapter.patches(grid)
        for part, block in self._parts:
            left = work.spans(adapter, grid, block)[1] // adapter.merge**2
            tower += 2 * part * (left if block < adapter.last_block() else tokens)
        for number, (linear, attention, inner) in enumerate(self._blocks):
            spans, after = work.spans(adapter, grid, number)
            tower += 2 * (attention * sum(spans) + (linear - attention) * after)
            tower += 4 * inner * sum(span * span for span in spans)
        return tower, 2 * self._projector * tokens


def decoder_layer(layer: Any, routed: int | None = None) -> tuple[int, int]:
    """Count the multiply-adds of a decoder layer: those of one token, and of one pair of tokens in half its attention.

    Raises:
        UnsupportedError: the layer has neither attention nor a linear attention of known state.
    """
    if hasattr(layer, "self_attn"):
        return products(layer, routed), width(layer.self_attn)
    names = ("num_v_heads", "head_k_dim", "head_v_dim")
    states = [part for part in layer.children() if all(hasattr(part, name) for name in names)]
    if len(states) != 1:
        raise UnsupportedError(
            f"the operations of {type(layer).__name__} cannot be counted: it has no self_attn, and no linear attention "
            f"whose state is {' x '.join(names)}"
        )
    state = math.prod(getattr(states[0], name) for name in names)
    return products(layer, routed) + 3 * state, 0  # what a key recalls, its correction, what a query reads


def experts_per_token(config: Any) -> int | None:
    """Return how many routed experts a decoder of this configuration uses for a token; None if it has none."""
    found = (getattr(config, name, None) for name in ("num_experts_per_tok", "top_k_experts"))
    return next((number for number in found if number is not None), None)


def products(module: Any, routed: int | None = None, bare: Mapping[str, bool] = NONE) -> int:
    """Count the multiply-adds of a module's weights for one token (or embedded patch).

    Args:
        module: the module; what its children called `experts` hold is used by a token in part.
        routed: number of experts that a token is routed to.
        bare: weights outside of layers, see `ModelAdapter.bare_weights`.

    Raises:
        UnsupportedError: a part has weights whose products are unknown.
    """
    parts = (
        _experts(part, routed) if name == "experts" else products(part, routed, bare)
        for name, part in module.named_children()
    )
    return _weights(module, bare) + sum(parts)


def width(attention: Any) -> int:
    """Return heads x head size: input width of an attention's output projection, the last of its linear layers."""
    return _inputs(attention)[-1]


def _inputs(module: nn.Module) -> list[int]:
    """Return the input widths of a module's linear layers; of one with a trained adapter its own, not the adapter's."""
    if isinstance(width := getattr(module, "in_features", None), int):
        return [width]
    return [width for part in module.children() for width in _inputs(part)]


def _experts(module: nn.Module, routed: int | None) -> int:
    """Count `routed` experts of a list of modules, or of tensors [experts, m, n]; two-dimensional ones are biases."""
    if routed is None:
        raise UnsupportedError(
            f"the operations of {type(module).__name__} cannot be counted: the decoder's configuration does not say "
            "how many experts a token uses (num_experts_per_tok)"
        )
    if isinstance(module, nn.ModuleList):
        return products(module) * routed // len(module)
    matrices = _matrices(module)
    weights = {name: tensor for name, tensor in matrices.items() if tensor.dim() != 2}
    if not {"down_proj"} < set(weights) <= EXPERTS or any(
        tensor.dim() != 3 or not tensor.is_floating_point() for tensor in weights.values()
    ):
        raise _uncounted(module, matrices)
    return sum(tensor[0].numel() for tensor in weights.values()) * routed


def _weights(part: nn.Module, bare: Mapping[str, bool]) -> int:
    """Count the elements of a layer's own weight, from its declared size: quantised layers pack theirs."""
    if isinstance(part, nn.Linear):
        return part.in_features * part.out_features
    if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return part.weight.numel()
    matrices = {} if isinstance(part, nn.Embedding) else _matrices(part)
    if isinstance(getattr(part, "top_k", None), int) and set(matrices) == {"weight"}:  # a router
        return matrices["weight"].numel()
    if matrices.keys() - bare.keys():
        raise _uncounted(part, matrices)
    return sum(tensor.numel() for name, tensor in matrices.items() if bare[name])


def _matrices(part: nn.Module) -> dict[str, Tensor]:
    """Return a module's own tensors of two dimensions or more, but for those of a batch of one, which are added."""
    own = (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False))
    return {name: tensor for name, tensor in own if tensor.dim() > 1 and len(tensor) > 1}


def _uncounted(part: nn.Module, matrices: dict[str, Tensor]) -> UnsupportedError:
    shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in matrices.items())
    return UnsupportedError(
        f"the operations of {type(part).__name__} cannot be counted: it holds {shapes or 'no weights of its own'}, and "
        "only linear, convolution and embedding layers, routers and experts [experts, m, n] are known"
    )
