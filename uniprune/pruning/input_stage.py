"""Input stages: methods that change images before a model's processor gets them, and prune nothing later.

A model family describes the forms in which it can encode an image (`Forms`); a method chooses among them. Budgets are
counted against the image as the model would encode it without the method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from uniprune.errors import UserError
from uniprune.pruning.base import Pruner, Stage

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]
"""Height and width, or rows and columns."""


@dataclass(frozen=True)
class Form:
    """One way in which a model can encode an image.

    Attributes:
        tokens: its visual tokens, as budgets count them.
        grid: rows and columns of tokens; only their ratio matters.
        pixels: height and width to which the image is resized before it is processed; None leaves it as it is.
        limits: further limits, in the family's own terms; of several images in a prompt, each limit's least holds.
    """

    tokens: int
    grid: Size
    pixels: Size | None = None
    limits: tuple[int, ...] = ()


class Forms(Protocol):
    """The forms in which a model can encode an image of a prompt, under the settings of its processor."""

    def full(self, size: Size) -> int:
        """Return the visual tokens of an image of `size` pixels, height first, that is left as it is."""

    def within(self, size: Size, keep: int) -> Sequence[Form]:
        """Return the largest forms of at most `keep` tokens, or the smallest form if all have more."""

    def processor(self, processor: Any, forms: Sequence[Form]) -> Any:
        """Return the processor that encodes the images of a prompt in these forms."""


@dataclass(frozen=True, kw_only=True)
class InputStage(Pruner):
    """A method that changes images before they are processed. Subclass it and write `prepare`."""

    kind: ClassVar[str] = "input"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer:
            raise UserError(
                f"{type(self).__name__} acts before the model, so it has no layer {self.layer}; leave it out"
            )
        if self.scope != "image":
            raise UserError(
                f"{type(self).__name__} has a budget for each image, not scope {self.scope!r}; use scope=image"
            )

    @property
    def exact(self) -> bool:
        """False: the forms that a model has decide the number."""
        return False

    @property
    def input_stage(self) -> InputStage:
        """This."""
        return self

    @property
    def input_ratio(self) -> float:
        """Its ratio."""
        return self.ratio

    def after_input(self) -> Pruner:
        """Return a method that prunes nothing."""
        return Unchanged()

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """Return no pruning point."""
        return ()

    def prepare(self, image: Image, keep: int, forms: Forms) -> tuple[Image, Form | None]:
        """Return the image to process and the form in which to encode it, None for the processor's own.

        Args:
            image: RGB.
            keep: the image's budget in visual tokens.
            forms: what the model can do.

        Raises:
            ValueError: this image cannot be prepared; its row is left out.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement prepare(image, keep, forms)")


@dataclass(frozen=True, kw_only=True)
class Unchanged(Pruner):
    """Pruning of a model whose images an input stage has changed: none."""

    kind: ClassVar[str] = "none"

    def with_ratio(self, ratio: float) -> Self:
        """Return the same."""
        return self

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """Return no pruning point."""
        return ()


def largest_grids(keep: int) -> list[Size]:
    """Return the rows and columns of all grids of at most `keep` >= 1 tokens to which neither can be added."""
    widest = [(rows, keep // rows) for rows in range(1, keep + 2)]
    return [grid for grid, taller in pairwise(widest) if taller[1] < grid[1]]
