"""A `View` without a model, stand-ins for what it computes, and the engine's handling of one decision on it.

The stand-ins answer every request: what a case does not store (another layer, other rows) is noise, so that a method
that reads the wrong thing makes a wrong choice rather than an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from uniprune.engine.decisions import choose, settle
from uniprune.pruning.base import Pruner, Selection, Stage
from uniprune.pruning.view import View, VisionScores

SYSTEM = 3
"""Text tokens before the image, of views from `llm_view`."""


def make_view(tokens: Tensor, **given: Any) -> View:
    """Return a view of `tokens` [N, D] as one 1 x N image before layer 0; `given` replaces any other attribute."""
    count, width = tokens.shape
    defaults: dict[str, Any] = {
        "grids": [(1, 1, count)],
        "cells": torch.arange(count),
        "layer": 0,
        "num_layers": 32,
        "initial": count,
        "prompt": tokens.new_zeros(0, width),
        "text": tokens.new_zeros(0, width),
        "generator": torch.Generator().manual_seed(0),
        "attention": None,
        "vision": None,
    }
    return View(tokens=tokens, **defaults | given)


def decide(pruner: Pruner, view: View, keep: int) -> Selection:
    """Return a method's checked and sorted answer, in the order of its field `order`, as the engine applies it."""
    total, width = view.tokens.shape
    before = view.tokens.clone()
    answer = choose(Stage(view.layer, 1.0, pruner), "0", view, total, keep, width)
    (choice,) = settle([answer])
    unsorted = torch.from_numpy(choice.indices.read()[0])
    indices, order = unsorted.sort()
    tokens = None if answer.tokens is None else answer.tokens[0].to(before)
    if answer.released:
        return Selection(indices, before[unsorted] if tokens is None else tokens)
    return Selection(indices, None if tokens is None else tokens[order])


def noise(*shape: int) -> Tensor:
    """Return numbers from 0 to 1 that mean nothing, always the same for a shape."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def after_system(text: Tensor, dim: int = 0, scale: float = 1.0) -> Tensor:
    """Return values of the text after an image with noise, times `scale`, for `SYSTEM` tokens before it."""
    shape = list(text.shape)
    shape[dim] = SYSTEM
    return torch.cat([scale * noise(*shape).to(text), text], dim)


def llm_view(tokens: Tensor, attention: Rows, **given: Any) -> View:
    """Return a view before layer 3 of `tokens` [N, D] between `SYSTEM` text tokens and the text of `attention`."""
    return make_view(
        tokens,
        layer=3,
        attention=attention,
        upcoming=Rows(noise(*attention.rows["text"].shape)[:, SYSTEM:].to(attention.rows["text"])),
        after=torch.arange(SYSTEM, attention.rows["text"].shape[1]),
        **given,
    )


class Rows:
    """A stand-in for `view.attention` or `view.upcoming`.

    Args:
        text: [H, T, N] rows of the text after the image.
        keys: "visual" and "text" -> [R, C] keys.
        prior: [T, N] rotary prior of the text after the image.
        named: other rows [H, R, N].
    """

    def __init__(
        self, text: Tensor, keys: dict[str, Tensor] | None = None, prior: Tensor | None = None, **named: Tensor
    ) -> None:
        heads, _, count = text.shape
        self.keys_of = {} if keys is None else {"visual": keys["visual"], "text": after_system(keys["text"], scale=99)}
        self.prior = None if prior is None else after_system(prior)
        others = {name: noise(heads, rows, count).to(text) for name, rows in (("last", 1), ("visual", count))}
        self.rows = others | {"text": after_system(text, dim=1)} | named

    def __call__(self, rows: Any) -> Tensor:
        return self.rows["text"][:, rows] if isinstance(rows, Tensor) else self.rows[rows]

    def blocks(self, rows: Any) -> Iterator[Tensor]:
        yield from self(rows).split(7, dim=1)

    def keys(self, rows: Any) -> Tensor:
        return self.keys_of["text"][rows] if isinstance(rows, Tensor) else self.keys_of[rows]

    def rotary_prior(self, rows: Tensor) -> Tensor:
        assert self.prior is not None
        return self.prior[rows]


class Tower:
    """A stand-in for `view.vision`, whose projector doubles its input.

    Args:
        given: quantity -> its value, or its value and the arguments (other than the defaults) that stand for it.
    """

    patches = 1
    has_cls = True

    def __init__(self, **given: Tensor | tuple[Tensor, dict[str, Any]]) -> None:
        self._given = given

    def project(self, features: Tensor) -> Tensor:
        return 2 * features

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        given = self._given[name]
        value, wanted = given if isinstance(given, tuple) else (given, {})
        signature = inspect.signature(getattr(VisionScores, name))

        def quantity(*args: Any, **kwargs: Any) -> Tensor:
            asked, right = signature.bind(self, *args, **kwargs), signature.bind(self, **wanted)
            asked.apply_defaults()
            right.apply_defaults()
            return value if asked == right else noise(*value.shape).to(value)

        return quantity
