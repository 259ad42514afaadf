"""What a method sees at one pruning point: one image's tokens (or one prompt's), everything else on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from uniprune.errors import UserError

Grid = tuple[int, int, int]
Rows = Literal["last", "prompt", "text", "visual"]
Space = Literal["vision", "llm"]
T = TypeVar("T")


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
    """Attention of one decoder layer: recomputed for the query rows asked for."""

    def __call__(self, rows: Rows | Tensor) -> Tensor:
        """[heads, R, N] probabilities (softmax over the whole causal context) from `rows` to the view's tokens.

        "last" is the last prompt token, "prompt" the question's tokens, "text" all text tokens (as in `view.text`),
        "visual" the view's own tokens; an integer tensor indexes `view.text`.
        """

    def blocks(self, rows: Rows | Tensor) -> Iterator[Tensor]:
        """The same, [heads, r, N] for a few rows at a time: what to use for many rows, to bound memory."""

    def keys(self, rows: Rows | Tensor) -> Tensor:
        """[R, key heads * d] keys of the layer after rotary embedding, heads side by side."""

    def rotary_prior(self, rows: Rows | Tensor) -> Tensor:
        """[R, N] scaled dot product of all-ones queries and keys: what rotary positions alone contribute."""


class Embedded(Protocol):
    """What entered decoder layer 0, before any layer mixed the tokens."""

    @property
    def tokens(self) -> Tensor:
        """[N, D] at the view's tokens."""

    @property
    def text(self) -> Tensor:
        """[T, D] at the text tokens, as in `view.text`."""


@dataclass(frozen=True)
class Later(Generic[T]):
    """What a view holds of a value that is made when a method first looks at it."""

    make: Callable[[], T]


class Given(Generic[T]):
    """An attribute of a view, given as its value or as a `Later`. Without `default` it must be given."""

    def __init__(self, *default: T | Later[T]) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, view: object | None, owner: type) -> T:
        if view is None:  # the dataclass asks for the default
            if not self._default:
                raise AttributeError(self._name)
            return self._default[0]  # type: ignore[return-value]
        value = vars(view)[self._name]
        if isinstance(value, Later):
            value = vars(view)[self._name] = value.make()
        made: T = value
        return made

    def __set__(self, view: object, value: T | Later[T]) -> None:
        vars(view)[self._name] = value


_ABSENT: Any = None
"""In views made by hand; the engine sets every attribute."""


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
        after: [F] indices into `text` of the tokens behind the view's last visual token; see `following`.
        upcoming: attention layer K would have on the arriving tokens, for methods with `upcoming_attention`.
        embedded: embeddings that entered layer 0. norm: the decoder's final norm, [..., D] to [..., D].
    """

    tokens: Tensor
    grids: list[Grid]
    layer: int
    num_layers: int
    initial: int
    vision: VisionScores
    cells: Given[Tensor] = Given()
    prompt: Given[Tensor] = Given()
    text: Given[Tensor] = Given()
    generator: Given[torch.Generator] = Given()
    attention: Given[Attention] = Given()
    scratch: dict[str, Any] = field(default_factory=dict)
    after: Given[Tensor] = Given(Later(lambda: torch.arange(0)))
    upcoming: Given[Attention] = Given(_ABSENT)
    embedded: Given[Embedded] = Given(_ABSENT)
    norm: Callable[[Tensor], Tensor] = _ABSENT

    @property
    def following(self) -> Tensor:
        """[F] `after`, which must not be empty. Raises UserError when no text follows the view's tokens."""
        if not len(self.after):
            raise UserError(
                "the method ranks visual tokens by the text behind them, but the prompt ends with its image; put the "
                "question after the image"
            )
        return self.after

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
