"""Rows encoded in portions, by worker processes ahead of the model if there are any."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from uniprune.engine.token_map import PIXELS
from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.processing import EncodedImage, EncodedRequest, RequestEncoder


class _Rows(torch.utils.data.Dataset[EncodedRequest]):
    """Requests, encoded on access in this or a worker process."""

    def __init__(self, encoder: RequestEncoder, requests: Sequence[Request]) -> None:
        self._encoder, self._requests = encoder, requests

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, position: int) -> EncodedRequest:
        return self._encoder.encode(self._requests[position])


def windows(
    encoder: RequestEncoder, requests: Sequence[Request], size: int, workers: int
) -> Iterator[list[EncodedRequest]]:
    """Yield encoded rows in portions of `size`, encoded ahead by `workers` processes (0: by this one, on demand).

    When a worker dies, torch raises a RuntimeError anywhere in this process: see `explain_worker_failure`.
    """
    workers = min(workers, len(requests))  # none if another method has encoded everything
    loader = DataLoader(
        _Rows(encoder, requests),
        batch_size=None,
        collate_fn=_sent,
        num_workers=workers,
        prefetch_factor=-(-size // workers) if workers else None,  # one portion, while the last one is evaluated
        # Workers inherit the requests: pickling a request would pickle the dataset that it loads from.
        multiprocessing_context="fork" if workers else None,
    )
    rows = map(_received, loader)
    while window := list(islice(rows, size)):
        yield window


@contextmanager
def explain_worker_failure() -> Iterator[None]:
    """Re-raise the death of a DataLoader worker inside the block as UserError.

    Torch raises a RuntimeError from its signal handler; receiving the last row of the dead worker may fail before that.
    """
    try:
        yield
    except (RuntimeError, EOFError, ConnectionRefusedError, ConnectionResetError) as error:
        reason = str(error).strip() or type(error).__name__
        if isinstance(error, RuntimeError) and not reason.startswith(("DataLoader worker", "Too many open files")):
            raise
        raise UserError(
            f"rows cannot be prepared ahead any more, usually for lack of memory ({reason}); every finished batch is "
            "stored: run the same command again to resume, with fewer --workers or a smaller --batch-size"
        ) from error


def _sent(row: Any) -> EncodedRequest:
    """Convert pixels to tensors, which leave a worker in shared memory; arrays would be copied through a pipe."""
    return _with_pixels(row, torch.from_numpy)


def _received(row: EncodedRequest) -> EncodedRequest:
    """Undo `_sent`; the pixels stay in shared memory."""
    return _with_pixels(row, Tensor.numpy)


def _with_pixels(row: EncodedRequest, change: Callable[[Any], Any]) -> EncodedRequest:
    """Convert the pixels of a row, which are its large arrays."""

    def changed(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: change(value) if name in PIXELS else value for name, value in inputs.items()}

    images = tuple(EncodedImage(image.key, changed(image.visual)) for image in row.images)
    return dataclasses.replace(row, inputs=changed(row.inputs), images=images)
