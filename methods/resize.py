"""Resize: a smaller image in place of fewer tokens, the baseline of VTC-Bench."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from uniprune.errors import UserError
from uniprune.pruning.input_stage import Form, Forms, InputStage
from uniprune.registry import register_method

from ._resize import RELEASES, nearest, saved

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
    licence="Apache-2.0",
    deviations=[
        "Paper: shrinks by a whole number, whatever tokens that leaves; here the budget is met, or the largest number "
        "below it that the model's sizes allow (`form=vtc-bench` shrinks as released; tokens are counted either way).",
        "Release: shrinks before it converts to RGB, here after it; at ratio 1 nothing is saved as JPEG.",
        "Release: Qwen2-VL and LLaVA-OneVision only. LLaVA-1.5 gets a smaller square with interpolated positions, "
        "LLaVA-NeXT and OneVision fewer tiles, so does InternVL, which gets a smaller one below a tile.",
        "Release: videos are not shrunk; here they are refused.",
    ],
    releases=RELEASES,
)
@dataclass(frozen=True, kw_only=True)
class Resize(InputStage):
    """Shrinks each image until its tokens meet the budget, and prunes nothing (Liao et al., arXiv 2510.07143).

    Of the sizes within the budget that no row or column can be added to, it takes the one nearest in aspect.

    Cost: none; the vision tower has less to do, too.

    Args:
        form: "exact" meets the budget or stays below; "vtc-bench" divides sides by k, ratio 1 / k^2, and saves as JPEG.
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
        """Return the image with sides divided by k, rounded down."""
        k, (width, height) = self.divisor, image.size
        if min(width, height) < k:
            raise ValueError(f"an image of {width}x{height} cannot be shrunk by {k}: no pixel is left of a side")
        return image.resize((width // k, height // k), BICUBIC)
