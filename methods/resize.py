"""Resize: a smaller image in place of fewer tokens, the baseline of VTC-Bench."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from uniprune.errors import UserError
from uniprune.pruning.input_stage import Form, Forms, InputStage
from uniprune.registry import register_method

from ._resize import nearest, saved

if TYPE_CHECKING:
    from PIL.Image import Image

DIVISORS, NEAR = range(1, 11), 0.005
"""Factors by which images are shrunk, and by which share a ratio may differ from 1 / k^2 (0.111 is a ninth)."""
BICUBIC = 3
"""Pillow's number, so that methods are imported without it."""


@register_method(
    "resize",
    paper="arXiv 2510.07143",
    code="Chenfei-Liao/VTC-Bench",
    deviations=[
        "Paper: shrinks by a whole number, whatever tokens that leaves; here the budget is met, or the largest number "
        "below it that the model's sizes allow (`form=vtc-bench` shrinks as released; tokens are counted either way).",
        "Release: shrinks before it converts to RGB, here after it; at ratio 1 the image is not saved as JPEG.",
        "Release: has Qwen2-VL and LLaVA-OneVision only. LLaVA-1.5 gets a smaller square with interpolated positions, "
        "InternVL fewer tiles, and below one tile a smaller one, LLaVA-NeXT and LLaVA-OneVision fewer tiles.",
        "Release: videos are not shrunk; here benchmarks of videos are refused.",
    ],
    releases={
        "test_resize.test_released_shares_are_far_from_their_names": "The share of tokens is not 1 / k^2: sides are "
        "rounded to tokens, and large images are limited before they are compared. 4000 x 6000 pixels have more tokens "
        "at k = 2 than whole, 2448 x 3264 have 3.4 times the budget.",
    },
)
@dataclass(frozen=True, kw_only=True)
class Resize(InputStage):
    """Shrinks each image until its tokens meet the budget, and prunes nothing (Liao et al., arXiv 2510.07143).

    The largest sizes within the budget are those to which neither a row nor a column of tokens can be added; of these
    it takes the one whose aspect is nearest to the image's.

    Cost: none; the vision tower has less to do, too.

    Args:
        form: "exact" meets the budget or stays below it; "vtc-bench" shrinks both sides by k, ratio 1 / k^2, bicubic,
            and saves as JPEG of quality 75.
    """

    form: Literal["exact", "vtc-bench"] = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form == "vtc-bench" and not self.divisor:
            allowed = ", ".join(f"{1 / k**2:.4g}" for k in DIVISORS)
            raise UserError(
                f"form=vtc-bench shrinks sides by a whole number, so ratio {self.ratio:g} is none of {allowed}"
            )

    @property
    def divisor(self) -> int:
        """The k of ratio 1 / k^2; 0 if there is none."""
        return next((k for k in DIVISORS if abs(self.ratio * k**2 - 1) <= NEAR), 0)

    def prepare(self, image: Image, keep: int, forms: Forms) -> tuple[Image, Form | None]:
        if self.form == "vtc-bench":
            return saved(self.shrunk(image)), None
        size = (image.height, image.width)
        form = nearest(size, forms.within(size, keep))
        return image if form.pixels is None else image.resize(form.pixels[::-1], BICUBIC), form

    def shrunk(self, image: Image) -> Image:
        """Return the image with its sides divided by k, rounded down."""
        k, (width, height) = self.divisor, image.size
        if min(width, height) < k:
            raise ValueError(f"an image of {width}x{height} cannot be shrunk by {k}: no pixel is left of a side")
        return image.resize((width // k, height // k), BICUBIC)
