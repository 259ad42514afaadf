"""Requests to model inputs: images decoded, prompts processed.

Rows are encoded one by one and padded together later, so that a row's inputs depend on its neighbours by padding only,
and batches can be formed by length.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from uniprune.engine import PromptInfo, QuestionFinder
from uniprune.engine.token_map import PIXELS
from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.frame_sampling import USUAL, FrameSampling, sampled, video_arguments
from uniprune.evaluation.image_decoding import ImageDecoding, converted
from uniprune.evaluation.prompts import Question, images_first
from uniprune.evaluation.rendering import ChatTemplate
from uniprune.evaluation.resizing import Resizing
from uniprune.evaluation.selections import AreasOf
from uniprune.modeling.image_settings import ImageSettings, enlarged, for_images
from uniprune.modeling.messages import Part, check_message
from uniprune.modeling.shown_areas import Shown
from uniprune.results.remarks import MOVED, QUESTION

TOGETHER = "batch_num_images"
"""Argument of models that encode an image differently if its prompt has others: images of each prompt."""


@dataclass(frozen=True)
class EncodedImage:
    """An image processed by itself.

    Attributes:
        key: hash of `visual`: equal images, cut and scaled in the same way, have equal features.
        visual: the processor's visual inputs; empty once its features are known.
    """

    key: str
    visual: dict[str, np.ndarray]


@dataclass(frozen=True)
class EncodedRequest:
    """A row as model inputs.

    Attributes:
        index: row id.
        length: longest prediction, in tokens.
        question: [M] token ids of the bare question.
        asked: [M] places of the question's tokens in the prompt; see `uniprune.engine.question`.
        inputs: the processor's output for this row alone; sequences are [1, L], visual inputs have their own shapes.
        images: images encoded one by one, in place of the pixels in `inputs`; empty if they are encoded with the row.
        frames: frames of its videos; None without a video.
        resized: visual tokens before an input stage changed the images, and its budget; None without one.
        tile: height and width of the pixels that are encoded, where an input stage chose them; () elsewhere.
        shown: what its images, then its videos show, where selections are kept; () elsewhere.
        remarks: what a reader should know of this row, by names of `uniprune.results.remarks.REMARKS`.
        chat: the row as a chat request of a serving engine, images in it; None where this process runs the model.
        error: why the row cannot be processed; everything else is then empty.
        text: the question.
    """

    index: str
    length: int = 0
    question: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    asked: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    inputs: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    images: tuple[EncodedImage, ...] = ()
    frames: int | None = None
    resized: tuple[int, int] | None = None
    tile: tuple[int, ...] = ()
    shown: tuple[Shown, ...] = ()
    remarks: tuple[str, ...] = ()
    chat: dict[str, Any] | None = None
    error: str | None = None
    text: str = ""

    @property
    def tokens(self) -> int:
        """L, length of the prompt with every visual token."""
        return int(self.inputs["input_ids"].shape[1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Key that the rows of a batch share: the tile, or, of a video, whether there are images, and a shape.

        Not every family takes images and videos in one forward; and some have a dimension for a video's frames.
        """
        videos = self.inputs.get("pixel_values_videos")
        return self.tile if videos is None else (int("pixel_values" in self.inputs), *videos.shape[1:])

    @property
    def memory(self) -> int:
        """Size of all arrays in bytes."""
        arrays = [self.question, self.asked, *self.inputs.values()]
        return sum(array.nbytes for array in arrays + [v for image in self.images for v in image.visual.values()])

    @property
    def info(self) -> PromptInfo:
        """Identity and question of the prompt, for the engine."""
        return PromptInfo(self.index, torch.from_numpy(self.question), torch.from_numpy(self.asked), self.text)

    @property
    def visual(self) -> dict[str, np.ndarray]:
        """Visual inputs: everything that is not one value per token of the prompt."""
        return visual_inputs(self.inputs)

    def without_pixels(self) -> EncodedRequest:
        """Return the row without pixels, for a model that receives image features."""
        inputs = {name: value for name, value in self.inputs.items() if name not in PIXELS}
        images = tuple(EncodedImage(image.key, {}) for image in self.images)
        return dataclasses.replace(self, inputs=inputs, images=images)


class RequestEncoder:
    """Chat template, image processor and tokenizer of a model, for one request at a time.

    Args:
        processor: the processor of the rows (`LoadedModel.processor_for`).
        per_image: process every image by itself, as `FeatureCache` needs it.
        decoding: conversion of images to RGB.
        settings: of the rows; those beyond the processor's own fields depend on the images of a row.
        question: "hidden" puts the images of a message first.
        sampling: choice of the frames of videos.
        mixes: whether the model takes images and videos in one prompt (`ModelAdapter.mixes`).
        resizing: the method's input stage; None for images as they are.
        areas: function that returns what images show; None if selections are not kept.
    """

    def __init__(
        self,
        processor: Any,
        per_image: bool = False,
        decoding: ImageDecoding = "kit",
        settings: ImageSettings | None = None,
        question: Question = "seen",
        sampling: FrameSampling = USUAL,
        mixes: bool = False,
        resizing: Resizing | None = None,
        areas: AreasOf | None = None,
    ) -> None:
        self.processor, self.tokenizer, self.per_image = processor, processor.tokenizer, per_image
        self.decoding, self.settings = decoding, settings or ImageSettings()
        self.question, self.sampling, self.mixes, self.resizing = question, sampling, mixes, resizing
        self._areas = areas
        self._template, self._questions = ChatTemplate(processor), QuestionFinder(processor)

    def encode(self, request: Request) -> EncodedRequest:
        """Decode and process a row; a row that fails carries the reason in `error`."""
        try:
            chosen, repeated = sampled(request.load(), self.sampling)
            given, remarks = converted(chosen, self.decoding)
        except UserError as error:
            return EncodedRequest(request.index, error=str(error))
        except Exception as error:  # Pillow's decoders raise whatever they stumble over
            return EncodedRequest(request.index, error=f"{type(error).__name__}: {error}")
        parts = images_first(given) if self.question == "hidden" else given
        try:
            row = self._encode(request, parts)
        except MemoryError:
            raise
        except Exception as error:  # an image that is too narrow, a message the template refuses, …
            kind = "" if isinstance(error, (ValueError, TemplateError)) else f"{type(error).__name__}: "
            return EncodedRequest(request.index, error=f"the model's processor: {kind}{error}")
        return dataclasses.replace(row, remarks=(*row.remarks, *[MOVED] * (parts is not given), *remarks, *repeated))

    def _encode(self, request: Request, parts: Sequence[Part]) -> EncodedRequest:
        """Process a row.

        Raises:
            ValueError: template or processor do not accept it.
        """
        check_message(parts, self.processor)
        images = [part for part in parts if part.image is not None]
        clips = [part.clip for part in parts if part.clip is not None]
        if images and clips and not self.mixes:
            raise ValueError("images and videos in one message are not supported with this family; expected one kind")
        processor = for_images(self.processor, self.settings.image_total, len(images))
        parts, tokens, usual = enlarged(parts, self.settings.enlarge_first), None, processor
        if self.resizing is not None and images:
            parts, changed = self.resizing.message(parts, processor)
            processor, tokens = changed.processor, (changed.initial, changed.budget)
        images = [part for part in parts if part.image is not None]
        inputs = self._processed(processor, parts)
        found = self._questions.find(inputs["input_ids"][0].tolist(), request.question)
        row = EncodedRequest(
            index=request.index,
            length=request.max_new_tokens,
            question=np.asarray(self._questions.ids(request.question), np.int64),
            asked=np.asarray(found.positions, np.int64),
            inputs=inputs,
            frames=sum(len(clip.places) for clip in clips) if clips else None,
            resized=tokens,
            shown=() if self._areas is None else self._areas(processor, parts, self.settings.one_by_one),
            tile=() if processor is usual else tile_of(inputs["pixel_values"]),
            remarks=() if found.exact else (QUESTION,),
            text=request.question,
        )
        if not self.per_image:
            return row
        alone = self._alone(processor, images, visual_inputs(inputs))
        return dataclasses.replace(row.without_pixels(), images=tuple(EncodedImage(hashed(one), one) for one in alone))

    def _alone(self, processor: Any, images: Sequence[Part], together: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        """Return the visual inputs of every image, given those of all of them in one prompt."""
        if len(images) == 1:
            return [together]
        if TOGETHER in together and not self.settings.one_by_one:  # each keeps the form it has among the others
            return [
                {name: value if name == TOGETHER else value[i : i + 1] for name, value in together.items()}
                for i in range(len(images))
            ]
        # Among others an image may be padded: of images cut into tiles, all are padded to the most.
        return [visual_inputs(self._processed(processor, (image,))) for image in images]

    def _processed(self, processor: Any, parts: Sequence[Part]) -> dict[str, np.ndarray]:
        """Apply chat template and a processor to a user message."""
        images = [part.image for part in parts if part.image is not None]
        prompt = self._template.render(parts)
        inputs = processor(
            text=prompt,
            images=(images if self.settings.one_by_one else [images]) if images else None,
            **video_arguments([part.clip for part in parts if part.clip is not None]),
            add_special_tokens=self.needs_start(prompt),
            return_tensors="pt",
        )
        return {name: value.numpy() for name, value in inputs.items()}

    def needs_start(self, prompt: str) -> bool:
        """Check whether the tokenizer must add its start token: templates that write it would double it."""
        start = self.tokenizer.bos_token
        return not (start and prompt.startswith(start))


def visual_inputs(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return those of one row's inputs that are not one value per token of the prompt."""
    tokens = inputs["input_ids"].shape[1]
    return {name: value for name, value in inputs.items() if value.shape != (1, tokens)}


def tile_of(pixels: np.ndarray) -> tuple[int, ...]:
    """Return the height and width of pixels [images, …, channels, H, W]; () for a list of patches."""
    return pixels.shape[-2:] if pixels.ndim > 3 else ()


def hashed(arrays: dict[str, np.ndarray]) -> str:
    """Hash names, shapes and contents."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(arrays.items()):
        digest.update(f"{name} {value.shape} {value.dtype}".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def collate(rows: Sequence[EncodedRequest], pad: int) -> dict[str, Tensor]:
    """Join rows to inputs of `generate`: sequences padded on the left with `pad` (masks: 0), images concatenated."""
    inputs: dict[str, Tensor] = {}
    visual = {name for row in rows for name in row.visual}
    for name in dict.fromkeys(name for row in rows for name in row.inputs):
        values = [torch.from_numpy(row.inputs[name]) for row in rows if name in row.inputs]
        if name not in visual:
            filler, sequences = pad if name == "input_ids" else 0, [value[0] for value in values]
            inputs[name] = pad_sequence(sequences, batch_first=True, padding_value=filler, padding_side="left")
        elif len({value.shape[1:] for value in values}) == 1:
            inputs[name] = torch.cat(values)
        else:  # numbers of tiles, or sizes, differ: models read as much as an image has
            inputs[name] = _padded([image for value in values for image in value])
    return inputs


def _padded(images: Sequence[Tensor]) -> Tensor:
    """Stack images, filled up with zeros at the end of each dimension to the largest."""
    sizes = torch.tensor([image.shape for image in images]).amax(0)
    stacked = images[0].new_zeros(len(images), *sizes.tolist())
    for place, image in zip(stacked, images, strict=True):
        place[tuple(map(slice, image.shape))] = image
    return stacked
