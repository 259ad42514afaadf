"""The view of one pruning decision: one image's (or one prompt's) visual tokens, and everything else on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from uniprune.errors import UserError

Grid = tuple[int, int, int]
Rows = Literal["last", "prompt", "text", "visual"]
Space = Literal["vision", "llm"]
TowerLayer = int | float | None
"""A block of the vision tower: its number, negative from the end; as a float, the first one at this share of the depth
that attends to the whole image (3 / 8 is the ninth of 24); None, the one that makes the projector's features."""


class TextTower(Protocol):
    """The text tower that a vision tower was trained with, and the question in the space of both."""

    @property
    def words(self) -> Tensor:
        """[M, E] last states of the question's tokens, special ones included, projected."""

    @property
    def summary(self) -> Tensor:
        """[E] the projected embedding of the question."""

    def project(self, features: Tensor, normed: bool = False) -> Tensor:
        """Return [..., E] of the tower's features [..., C], through its last norm first if `normed`."""


class VisionScores(Protocol):
    """Vision-tower quantities of the tokens in the view, recomputed on demand (any attention kernel).

    `layer` must be declared in the method's `vision_layers`; None is the block that makes the projector's features, or
    the last one that attends to the whole image. Patch quantities are averaged to the tokens the LLM sees, those of
    tokens that a model averages after its projector with the model's weights.
    """

    @property
    def patches(self) -> int:
        """Vision patches per token."""

    @property
    def has_cls(self) -> bool:
        """Return whether the tower has a CLS token."""

    def importance(self, layer: TowerLayer = None, joint: bool = False) -> Tensor:
        """Return [N] CLS attention, mean over heads; received attention where the tower has no CLS token.

        With `joint` the CLS query and the keys of all heads count as one head (scale C ** -0.5 of the full width).
        """

    def received(self, layer: TowerLayer = None) -> Tensor:
        """Return [N] attention each token receives, mean over heads and queries."""

    def from_others(self, layer: TowerLayer = None) -> Tensor:
        """Return [N] attention each token receives from patches other than itself, mean over heads and patches.

        The query of a CLS token is left out.
        """

    def exchanged(self, layer: int | None = None) -> Tensor:
        """Return [2, N] attention each token emits to (0) and receives from (1) patches, mean over heads and patches.

        A CLS token is left out of rows and columns, without renormalising.
        """

    def cls(self, layer: int | None = None) -> Tensor:
        """Return [heads, N] attention of the CLS query.

        Raises:
            UnsupportedError: the tower has no CLS token.
        """

    def cls_tokens(self, layer: int | None = None) -> Tensor:
        """Return [images, C] CLS states leaving the layer.

        Raises:
            UnsupportedError: the tower has no CLS token, or it cannot be projected.
        """

    def keys(self, layer: int | None = None, head_mean: bool = False) -> Tensor:
        """Return [N, C] key vectors, heads side by side or averaged."""

    def hidden(self, layer: int | None = None) -> Tensor:
        """Return [N, C] hidden states entering the layer."""

    def features(self) -> Tensor:
        """Return [N, C] inputs of the projector; C covers all patches of a token."""

    def text_tower(self) -> TextTower:
        """Return the text tower of the CLIP model that the method's field `text_checkpoint` names.

        Raises:
            UnsupportedError: it names none; the checkpoints of the families here carry none.
            UserError: the question is known by its tokens only.
        """

    def project(self, features: Tensor) -> Tensor:
        """Return [k, D], the projector applied to features [k, C].

        Raises:
            UnsupportedError: the model averages the view's tokens after its projector, so no features become them.
        """


class Attention(Protocol):
    """Attention of one decoder layer, recomputed for the requested query rows only."""

    def __call__(self, rows: Rows | Tensor) -> Tensor:
        """Return [heads, R, N] probabilities (softmax over the whole causal context) from `rows` to the view's tokens.

        "last" is the last prompt token, "prompt" the question's tokens, "text" all text tokens (as in `view.text`),
        "visual" the view's own tokens; an integer tensor indexes `view.text`.
        """

    def blocks(self, rows: Rows | Tensor) -> Iterator[Tensor]:
        """Yield the same as [heads, r, N] for a few rows at a time: for many rows, to bound memory."""

    def keys(self, rows: Rows | Tensor) -> Tensor:
        """Return [R, key heads * d] keys of the layer after rotary embedding, heads side by side."""

    def rotary_prior(self, rows: Rows | Tensor) -> Tensor:
        """Return [R, N] scaled dot products of all-ones queries and keys: the part of rotary positions alone."""


class Embedded(Protocol):
    """Embeddings that entered decoder layer 0, before any layer mixed the tokens."""

    @property
    def tokens(self) -> Tensor:
        """[N, D] at the view's tokens."""

    @property
    def text(self) -> Tensor:
        """[T, D] at the text tokens, as in `view.text`."""


@dataclass(frozen=True)
class Tiles:
    """The tiles of one image: one shows the whole image, the others are parts of a larger version of it.

    Attributes:
        of: [N] number of the tile that each token of a view is from, of a mean of tokens that with the largest share;
            on the CPU.
        overview: number of the tile that shows the whole image.
    """

    of: Tensor
    overview: int


_ABSENT: Any = None
"""Default of attributes that only some methods read; views of the engine have them all."""


@dataclass
class BlockState:
    """A block of the vision tower between its attention and its MLP.

    Attributes:
        keys: [heads, N, d] of its attention.
        sizes: [N] number of patches that each token is a mean of.
        protected: number of first tokens that never merge: a CLS token.
        merged: [keep] set by `select`: sizes of the tokens that it returns.
    """

    keys: Tensor
    sizes: Tensor
    protected: int
    merged: Tensor | None = None


@dataclass
class View:
    """One pruning decision: the tokens of one image (scope "image") or of all images of a prompt (scope "prompt").

    A view made by hand takes values. The engine passes a subclass that computes most attributes when they are first
    read, so a method pays only for what it uses.

    Attributes:
        tokens: [N, D] visual tokens entering decoder layer `layer` (projector output when `layer` is 0), float dtype
            of the model; score in float32.
        grids: (t, h, w) in LLM tokens for every image or tile in the view.
        layer: K, the decoder layer about to run.
        num_layers: decoder layers in all.
        initial: tokens of the view before any pruning.
        vision: vision-tower quantities on demand.
        cells: [N] index of each token's place in the concatenated grids (`arange(N)` until something was pruned). After
            `order=release` it may come from another one; `vision`, `tiles` and `embedded` are always its own.
        prompt: [M, D] input embeddings of the question, encoded by itself (in the prompt, if it was given by its
            positions only; else of all non-special text after the first image).
        text: [T, D] hidden states entering layer K of every text token of the prompt.
        generator: CPU generator seeded by (seed, sample id, image, layer): the only source of randomness.
        attention: attention of layer K - 1 on demand, for methods with `llm_attention`.
        scratch: kept from stage to stage within this sample and image.
        after: [F] indices into `text` of the tokens after the view's last visual token; see `following`.
        upcoming: attention layer K would have on the arriving tokens, for methods with `upcoming_attention`.
        embedded: embeddings that entered layer 0.
        norm: the decoder's final norm, [..., D] to [..., D].
        tiles: the tiles that the tower encoded; None if no tile shows the whole image that others are parts of.
        seen: [N, ...] rows that the method's `look` made of the tokens, one tensor per look so far, in order.
        pixels: [N, P] in the vision tower only: all pixels of each token, from 0 to 1, in any order that is the same
            for every token.
        block: state of the tower's block, for methods that merge inside blocks; then `tokens` are those between its
            attention and its MLP, a CLS token among them.
    """

    tokens: Tensor
    grids: list[Grid]
    layer: int
    num_layers: int
    initial: int
    vision: VisionScores
    cells: Tensor
    prompt: Tensor
    text: Tensor
    generator: torch.Generator
    attention: Attention
    scratch: dict[str, Any] = field(default_factory=dict)
    after: Tensor = field(default_factory=lambda: torch.arange(0))
    upcoming: Attention = _ABSENT
    embedded: Embedded = _ABSENT
    norm: Callable[[Tensor], Tensor] = _ABSENT
    tiles: Tiles | None = None
    seen: Sequence[Tensor] = ()
    pixels: Tensor = _ABSENT
    block: BlockState = _ABSENT

    @property
    def total(self) -> int:
        """N, the number of tokens, for a method that reads nothing else of them."""
        return len(self.tokens)

    @property
    def following(self) -> Tensor:
        """[F] `after`, which must not be empty.

        Raises:
            UserError: no text follows the view's tokens.
        """
        if not len(self.after):
            raise UserError(
                "the method ranks visual tokens by the text after them, but the prompt ends with its image; put the "
                "question after the image"
            )
        return self.after

    @property
    def grid(self) -> Grid:
        """(t, h, w) of the only image in the view.

        Raises:
            ValueError: the view holds several grids.
        """
        if len(self.grids) != 1:
            raise ValueError(f"the view holds {len(self.grids)} grids; use view.grids")
        return self.grids[0]

    def features(self, space: Space) -> Tensor:
        """Return the tokens' features [N, C] entering the projector ("vision") or the language model ("llm")."""
        return self.vision.features() if space == "vision" else self.tokens

    def project(self, features: Tensor, space: Space) -> Tensor:
        """Return replacement tokens [k, D] for features [k, C] of that space."""
        return self.vision.project(features) if space == "vision" else features
