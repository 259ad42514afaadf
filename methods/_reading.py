"""The released code of a method that is followed, of two: that for LLaVA, or that for Qwen."""

from __future__ import annotations

from typing import Literal

from uniprune.pruning.view import View

Reading = Literal["llava", "qwen"]


def as_qwen(view: View, reading: Reading | None) -> bool:
    """Check whether a view is read as Qwen's; without a `reading` if the tower has no CLS token."""
    return (reading or ("llava" if view.vision.has_cls else "qwen")) == "qwen"
