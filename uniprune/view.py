"""What a method sees at one pruning point: one image's tokens (or one prompt's), everything else on demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

Grid = tuple[int, int, int]
Rows = Literal["last", "prompt", "text", "visual"]
Space = Literal["vision", "llm"]


class VisionScores(Protocol):
    """Vision-tower quantities of the tokens in the view, recomputed on demand (any attention kernel).

    `layer` must be declared in the method's `vision_layers`; None is the block that makes the projector's features, or
    the last one that attends to the whole image. Patch quantities are averaged to the tokens the LLM sees.

    """

    @property
    def patches(self) -> int:
        """Vision patches per token."""

    def importance(self, layer: int | None = None, joint: bool = False) -> Tensor:
        """[N] CLS attention, mean over heads; received attention where the tower has no CLS token.

        With `joint` the CLS query and the keys of all heads count as one head (scale C ** -0.5 of the full width).
        """

    def received(self, layer: int | None = None) -> Tensor:
        """[N] attention each token receives, mean over heads and queries."""

    def exchanged(self, layer: int | None = None) -> Tensor:
        """[2, N] attention each token emits to (0) and receives from (1) patches, mean over heads and patches.

        A CLS token is left out of rows and columns, without renormalising.
        """

    def cls(self, layer: int | None = None) -> Tensor:
        """[heads, N] attention of the CLS query; raises UnsupportedError where the tower has none."""

    def cls_tokens(self, layer: int | None = None) -> Tensor:
        """[images, C] CLS states leaving the layer; raises UnsupportedError where they cannot be projected."""

    def keys(self, layer: int | None = None, head_mean: bool = False) -> Tensor:
        """[N, C] key vectors, heads side by side or averaged."""

    def hidden(self, layer: int | None = None) -> Tensor:
        """[N, C] hidden states entering the layer."""

    def features(self) -> Tensor:
        """[N, C] what entered the projector; C covers all patches of a token."""

    def project(self, features: Tensor) -> Tensor:
        """[k, D] the projector applied to features [k, C]."""


class Attention(Protocol):
    """Attention of decoder layer K - 1, one block of query rows at a time."""

    def __call__(self, rows: Rows | Tensor) -> Tensor:
        """[heads, R, N] probabilities (softmax over the whole causal context) from `rows` to the view's tokens.

        "last" is the last prompt token, "prompt" the question's tokens, "text" all text tokens (as in `view.text`),
        "visual" the view's own tokens; an integer tensor indexes `view.text`.
        """


@dataclass
class View:
    """One pruning decision: the tokens of one image (scope "image") or of all images of a prompt (scope "prompt").

    Attributes:
        tokens: [N, D] visual tokens entering decoder layer `layer` (projector output when `layer` is 0), float dtype
            of the model; score in float32.
        grids: (t, h, w) in LLM tokens for every image or tile in the view.
        cells: [N] index of each token in the concatenated grids (`arange(N)` until something was pruned).
        layer: K, the decoder layer about to run. num_layers: decoder layers in all.
        initial: tokens the view had before any pruning.
        prompt: [M, D] input embeddings of the question (what the evaluator called the question, else all non-special
            text after the first image).
        text: [T, D] hidden states entering layer K of every text token of the prompt.
        generator: CPU generator seeded by (seed, sample id, image, layer): the only source of randomness.
        attention: attention of layer K - 1 on demand. vision: vision-tower quantities on demand.
        scratch: survives from stage to stage within this sample and image.
    """

    tokens: Tensor
    grids: list[Grid]
    cells: Tensor
    layer: int
    num_layers: int
    initial: int
    prompt: Tensor
    text: Tensor
    generator: torch.Generator
    attention: Attention
    vision: VisionScores
    scratch: dict[str, Any] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """(t, h, w) of the only image in the view. Raises ValueError when there are several."""
        if len(self.grids) != 1:
            raise ValueError(f"the view holds {len(self.grids)} grids; use view.grids")
        return self.grids[0]

    def features(self, space: Space) -> Tensor:
        """[N, C] the tokens as they enter the projector ("vision"), or as they enter the language model ("llm")."""
        return self.vision.features() if space == "vision" else self.tokens

    def project(self, features: Tensor, space: Space) -> Tensor:
        """[k, D] replacement tokens from features [k, C] of that space."""
        return self.vision.project(features) if space == "vision" else features
