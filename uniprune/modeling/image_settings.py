"""Settings of image processing: those of a model, and those of its rows on one benchmark.

A processor is never changed: a copy has the settings, so that rows of one benchmark leave those of another alone.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from uniprune.errors import UserError
from uniprune.modeling.messages import Part

ImagePolicy = Literal["paper", "checkpoint"]
"""Image processing of the papers' harness, where the catalogue has it, or the checkpoint's own."""
TYPE = "image_processor_type"
"""Setting that names a class of transformers in place of the checkpoint's image processor."""
SINGLE = ("enlarge_first", "one_by_one")
"""Settings that are one value."""


class ImageSettings(BaseModel):
    """Differences from the checkpoint's own image processing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_processor: dict[str, Any] = Field(default_factory=dict)
    """Fields of the image processor by the names that its preprocessor_config.json has."""
    image_total: dict[str, int] = Field(default_factory=dict)
    """Fields of the image processor whose sum over the images of a prompt is limited: each gets an equal part."""
    enlarge_first: int = Field(default=1, ge=1)
    """Factor by which the first image of a prompt is enlarged (bilinear) before it is processed."""

    one_by_one: bool = False
    """True if every image of a prompt is processed as if it were the only one."""

    def joined(self, more: ImageSettings) -> ImageSettings:
        """Return these settings with those of `more` in their place, field by field."""
        return ImageSettings(
            image_processor={**self.image_processor, **more.image_processor},
            image_total={**self.image_total, **more.image_total},
            **{name: getattr(more if name in more.model_fields_set else self, name) for name in SINGLE},
        )

    def plain(self) -> dict[str, Any]:
        """Return the settings that are not at their defaults, as plain JSON values."""
        return self.model_dump(mode="json", include=set(ImageSettings.model_fields), exclude_defaults=True)


def with_settings(processor: Any, settings: Mapping[str, Any]) -> Any:
    """Return a processor whose image processor has these fields; the same one if there are none.

    Raises:
        UserError: transformers has no image processor of the name.
    """
    if not settings:
        return processor
    own = processor.image_processor
    fields = {**own.to_dict(), **settings}
    fields.pop(TYPE)
    changed = copy.copy(processor)
    changed.image_processor = image_processor_class(settings.get(TYPE, own)).from_dict(fields)
    return changed


def image_processor_class(of: Any) -> Any:
    """Return the class of an image processor, or transformers' class of a name.

    Raises:
        UserError: transformers has no image processor of the name.
    """
    import transformers

    kind = getattr(transformers, of, None) if isinstance(of, str) else type(of)
    if not hasattr(kind, "valid_kwargs"):
        raise UserError(f"{TYPE} {of!r} is unknown to transformers {transformers.__version__}; expected a class of it")
    return kind


def for_images(processor: Any, total: Mapping[str, int], images: int) -> Any:
    """Return the processor of a prompt with some images, which share every limit of `total`; each has 1 at least."""
    parts = {name: max(1, limit // max(1, images)) for name, limit in total.items()}
    lower = {name: part for name, part in parts.items() if part < getattr(processor.image_processor, name)}
    return with_settings(processor, lower)


def enlarged(parts: Sequence[Part], factor: int) -> Sequence[Part]:
    """Return a message with its first image enlarged."""
    first = next((i for i, part in enumerate(parts) if part.image is not None), None)
    if factor == 1 or first is None:
        return parts
    from PIL import Image

    image = parts[first].image.convert("RGB")  # type: ignore[union-attr]  # it is the first part with an image
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.BILINEAR)
    return [*parts[:first], dataclasses.replace(parts[first], image=image), *parts[first + 1 :]]
