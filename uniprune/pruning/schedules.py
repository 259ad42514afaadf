"""Methods that prune before several layers: where, how much, and what their ratio means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

from uniprune.errors import UserError
from uniprune.pruning.base import IntraLLM, Stage
from uniprune.pruning.budget import inverse
from uniprune.pruning.fields import NonNegative, validate

Budget = Literal["site", "paper"]
DEPTH = 32
"""Decoder layers of the model for which papers give layer numbers (LLaVA-1.5-7B)."""


@dataclass(frozen=True, kw_only=True)
class Staged(IntraLLM):
    """A method that prunes before several layers and chooses how many tokens it keeps; its ratio is nominal.

    Args:
        layer: the first pruning layer. The default belongs to a 32-layer decoder and is scaled with the depth, like
            `reference`; any other number is used unscaled, and the others keep their relative place after it.
        layers: all pruning layers, unscaled; overrides `layer`.
    """

    layers: tuple[NonNegative, ...] = ()
    reference: ClassVar[tuple[int, ...]] = ()
    """The paper's pruning layers (first layers with fewer tokens) on a decoder of 32 layers."""

    def __post_init__(self) -> None:
        validate(self)
        if self.layers:
            if list(self.layers) != sorted(set(self.layers)):
                raise UserError(f"layers {list(self.layers)} must increase, for example [2, 6, 15]")
            object.__setattr__(self, "layer", self.layers[0])
        super().__post_init__()

    @property
    def exact(self) -> bool:
        """False: the method chooses its own number."""
        return False

    def pruning_layers(self, num_layers: int) -> list[int]:
        """Return the pruning layers on a decoder of `num_layers` layers; late ones fall away where it is too shallow.

        Raises:
            UserError: a chosen layer is outside the decoder.
        """
        if self.layers:
            chosen = list(self.layers)
        elif self.layer == self.reference[0]:
            chosen = _distinct((k * num_layers / DEPTH for k in self.reference), num_layers)
        else:
            stretch = (num_layers - self.layer) / (DEPTH - self.reference[0])
            chosen = _distinct((self.layer + (k - self.reference[0]) * stretch for k in self.reference), num_layers)
        if not chosen or chosen[-1] >= num_layers:
            outside = chosen[-1] if chosen else self.layer
            raise UserError(f"layer {outside} is outside the model's decoder layers 0..{num_layers - 1}")
        return chosen

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """Return a stage for every pruning layer; none at ratio 1."""
        if self.ratio == 1.0:
            return ()
        return tuple(Stage(layer, self.ratio, self) for layer in self.pruning_layers(num_layers))


@dataclass(frozen=True, kw_only=True)
class MultiStage(Staged):
    """A method with one schedule per level: `shares(level, …)` of the visual tokens are left from each layer on.

    The ratio is, by default, the share left on average over the decoder layers from the first pruning layer on, which
    for a single pruning point is the share it keeps. The average over all layers (protocol "average") is solved for
    like any other method's.

    Args:
        budget: "site", or "paper": the ratio is the level itself, which the paper calls a setting.
    """

    budget: Budget = "site"

    @property
    def exact(self) -> bool:
        """True: the schedule gives the number."""
        return True

    def shares(self, level: float, layers: Sequence[int], num_layers: int) -> Sequence[float]:
        """Return the share of tokens left from each of `layers` on; grows with `level`, all 0 at 0 and all 1 at 1."""
        raise NotImplementedError(f"{type(self).__name__} must implement shares(level, layers, num_layers)")

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """Return one stage per pruning layer that drops tokens.

        Raises:
            UserError: more layers were chosen than the method has shares for, or one is outside the decoder.
        """
        layers = self.pruning_layers(num_layers)
        stages = len(self.shares(1.0, layers, num_layers))
        if stages < len(layers):
            raise UserError(f"{type(self).__name__} prunes before {stages} layers, got {layers}; leave some out")
        level = self.ratio
        if self.budget == "site" and self.ratio < 1:  # a level just below 1 may round to an average of 1
            level = inverse(lambda x: site_share(self.shares(x, layers, num_layers), layers, num_layers), self.ratio)
        shares = self.shares(level, layers, num_layers)
        drops = zip(layers, shares, [1.0, *shares], strict=False)
        return tuple(Stage(layer, share, self) for layer, share, before in drops if share < before)


def site_share(shares: Sequence[float], layers: Sequence[int], num_layers: int) -> float:
    """Return the mean of the shares left in the decoder layers from `layers[0]` on."""
    widths = [stop - start for start, stop in pairwise([*layers, num_layers])]
    return sum(share * width for share, width in zip(shares, widths, strict=True)) / (num_layers - layers[0])


def between(table: Mapping[float, Sequence[float]], x: float) -> list[float]:
    """Return row `x` of a table of rows, linear between neighbouring rows and constant outside them."""
    keys = sorted(table)
    if x in table or not keys[0] < x < keys[-1]:
        return list(table[min(max(x, keys[0]), keys[-1])])
    low, high = next(pair for pair in pairwise(keys) if x < pair[1])
    weight = (x - low) / (high - low)
    return [a + weight * (b - a) for a, b in zip(table[low], table[high], strict=True)]


def _distinct(places: Iterable[float], num_layers: int) -> list[int]:
    """Round places half up to different layers, from 1 on; those that do not fit below `num_layers` are left out."""
    layers = [0]
    for place in places:
        layers.append(max(math.floor(place + 0.5), layers[-1] + 1))
    return [layer for layer in layers[1:] if layer < num_layers]
