"""Rows as the model takes them: pictures decoded, prompts processed; ahead of the model in worker processes if asked.

Rows are encoded one by one and padded together later, so that a row's inputs do not depend on its neighbours and
batches can be formed by length.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.modeling.messages import Part

PIXELS = ("pixel_values", "pixel_values_videos")
"""Visual inputs that features replace; what is left tells the model how the pictures are laid out."""


@dataclass(frozen=True)
class EncodedImage:
    """One picture, processed by itself.

    Attributes:
        key: hash of `visual`: equal pictures, cut and scaled in the same way, have equal features.
        visual: the processor's visual inputs for it; empty where its features are known.
    """

    key: str
    visual: dict[str, np.ndarray]


@dataclass(frozen=True)
class EncodedRequest:
    """One row.

    Attributes:
        index: the row's id. length: longest answer, in tokens. question: [M] token ids of the bare question.
        inputs: the processor's output for this row alone; sequences are [1, L], visual inputs have their own shapes.
        pictures: of a row whose pictures are encoded apart: each of them, in place of the pixels in `inputs`.
        error: why the row cannot be asked; everything else is then empty.
    """

    index: str
    length: int = 0
    question: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    inputs: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    pictures: tuple[EncodedImage, ...] = ()
    error: str | None = None

    @property
    def tokens(self) -> int:
        """L, the prompt's length with every visual token."""
        return int(self.inputs["input_ids"].shape[1])

    @property
    def memory(self) -> int:
        """Bytes of its arrays."""
        arrays = [self.question, *self.inputs.values()]
        return sum(array.nbytes for array in arrays + [v for one in self.pictures for v in one.visual.values()])

    @property
    def visual(self) -> dict[str, np.ndarray]:
        """The visual inputs: everything that is not one value per token of the prompt."""
        return visual_inputs(self.inputs)

    def without_pixels(self) -> EncodedRequest:
        """The row for a model that is handed image features."""
        inputs = {name: value for name, value in self.inputs.items() if name not in PIXELS}
        return dataclasses.replace(
            self, inputs=inputs, pictures=tuple(EncodedImage(one.key, {}) for one in self.pictures)
        )


class RequestEncoder:
    """Chat template, image processor and tokenizer of a model, for one request at a time.

    Args:
        processor: the model's processor. apart: whether pictures are to be encoded one by one, as `Shared` does it.
    """

    def __init__(self, processor: Any, apart: bool = False) -> None:
        self.processor, self.tokenizer, self.apart = processor, processor.tokenizer, apart

    def encode(self, request: Request) -> EncodedRequest:
        """The row, its images decoded now. One that cannot be decoded, or is refused as it is, says why."""
        try:
            parts = tuple(iter(request.parts))  # a sequence would be asked for its length first, and built twice
            images = [part.image for part in parts if part.image is not None]
            for image in images:
                image.load()
        except Exception as error:  # Pillow's decoders raise whatever they stumble over
            return EncodedRequest(request.index, error=f"{type(error).__name__}: {error}")
        try:
            return self._encode(request, parts, images)
        except ValueError as error:  # what processors raise for pictures they do not take, such as very narrow ones
            return EncodedRequest(request.index, error=f"the model's processor: {error}")

    def _encode(self, request: Request, parts: Sequence[Part], images: Sequence[Image.Image]) -> EncodedRequest:
        """The row. Raises ValueError when the processor refuses it."""
        row = EncodedRequest(
            index=request.index,
            length=request.max_new_tokens,
            question=np.asarray(self.tokenizer(request.question, add_special_tokens=False)["input_ids"], np.int64),
            inputs=self._processed(parts),
        )
        if not self.apart:
            return row
        # Beside others a picture may look different: of pictures cut into tiles, all are padded to the most.
        alone = [row.visual] if len(images) == 1 else [visual_inputs(self._processed((Part(image=i),))) for i in images]
        return dataclasses.replace(
            row.without_pixels(), pictures=tuple(EncodedImage(hashed(one), one) for one in alone)
        )

    def _processed(self, parts: Sequence[Part]) -> dict[str, np.ndarray]:
        """What the processor makes of a user message."""
        images = [part.image for part in parts if part.image is not None]
        prompt = self.processor.apply_chat_template([message(parts)], tokenize=False, add_generation_prompt=True)
        inputs = self.processor(
            text=prompt,
            images=[images] if images else None,
            add_special_tokens=self._needs_start(prompt[0]),
            return_tensors="pt",
        )
        return {name: value.numpy() for name, value in inputs.items()}

    def _needs_start(self, prompt: str) -> bool:
        """Whether the tokenizer must still add its start token: templates that write it themselves would double it."""
        start = self.tokenizer.bos_token
        return not (start and prompt.startswith(start))


def visual_inputs(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of one row's inputs that are not one value per token of the prompt."""
    tokens = inputs["input_ids"].shape[1]
    return {name: value for name, value in inputs.items() if value.shape[:2] != (1, tokens)}


def hashed(arrays: dict[str, np.ndarray]) -> str:
    """Hash of names, shapes and contents."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(arrays.items()):
        digest.update(f"{name} {value.shape} {value.dtype}".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def message(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """The user message in the form chat templates expect."""
    content = [{"type": "image"} if part.image is not None else {"type": "text", "text": part.text} for part in parts]
    return [{"role": "user", "content": content}]


def collate(rows: Sequence[EncodedRequest], pad: int) -> dict[str, Tensor]:
    """Inputs of `generate` for some rows: sequences padded on the left with `pad` (masks with 0), pictures in a row."""
    inputs: dict[str, Tensor] = {}
    visual = {name for row in rows for name in row.visual}
    for name in dict.fromkeys(name for row in rows for name in row.inputs):
        values = [torch.from_numpy(row.inputs[name]) for row in rows if name in row.inputs]
        if name not in visual:
            filler, sequences = pad if name == "input_ids" else 0, [value[0] for value in values]
            inputs[name] = pad_sequence(sequences, batch_first=True, padding_value=filler, padding_side="left")
        elif len({value.shape[1:] for value in values}) == 1:
            inputs[name] = torch.cat(values)
        else:  # numbers of tiles: models read as many as a picture has
            inputs[name] = pad_sequence([picture for value in values for picture in value], batch_first=True)
    return inputs


class _Rows(torch.utils.data.Dataset[EncodedRequest]):
    """Requests that are encoded when looked at, here or in a worker process."""

    def __init__(self, encoder: RequestEncoder, requests: Sequence[Request]) -> None:
        self._encoder, self._requests = encoder, requests

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, place: int) -> EncodedRequest:
        return self._encoder.encode(self._requests[place])


def windows(
    encoder: RequestEncoder, requests: Sequence[Request], size: int, workers: int
) -> Iterator[list[EncodedRequest]]:
    """Encoded rows in portions of `size`, encoded ahead by `workers` processes (0: here, when they are needed).

    When one of these ends, torch raises a RuntimeError wherever this process is: see `told_of_workers`.
    """
    workers = min(workers, len(requests))  # none where another method has encoded everything
    loader = DataLoader(
        _Rows(encoder, requests),
        batch_size=None,
        collate_fn=_sent,
        num_workers=workers,
        prefetch_factor=-(-size // workers) if workers else None,  # a portion, while the one before is answered
        # Requests build their parts lazily, with closures: workers must inherit them.
        multiprocessing_context="fork" if workers else None,
    )
    rows = map(_received, loader)
    while window := list(islice(rows, size)):
        yield window


@contextmanager
def told_of_workers() -> Iterator[None]:
    """A block in which rows are prepared by worker processes. Raises UserError when one has ended or cannot go on."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(("DataLoader worker", "Too many open files")):
            raise
        raise UserError(
            f"rows cannot be prepared ahead any more, most often for want of memory ({str(error).strip()}); "
            "every finished batch is stored: run the same command again to resume, with fewer --workers or a smaller "
            "--batch-size"
        ) from error


def _sent(row: Any) -> EncodedRequest:
    """As it leaves a worker: torch hands tensors over in shared memory, while arrays would be copied through a pipe."""
    return _with_pixels(row, torch.from_numpy)


def _received(row: EncodedRequest) -> EncodedRequest:
    """The row as it was before `_sent`, its pixels still in shared memory."""
    return _with_pixels(row, Tensor.numpy)


def _with_pixels(row: EncodedRequest, change: Callable[[Any], Any]) -> EncodedRequest:
    """The row with its pixels, all that is large, turned into something else."""

    def changed(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: change(value) if name in PIXELS else value for name, value in inputs.items()}

    pictures = tuple(EncodedImage(one.key, changed(one.visual)) for one in row.pictures)
    return dataclasses.replace(row, inputs=changed(row.inputs), pictures=pictures)
