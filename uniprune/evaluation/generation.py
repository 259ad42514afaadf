"""Greedy generation with a loaded model: batches of encoded rows in, texts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from uniprune.evaluation.processing import EncodedRequest, collate
from uniprune.modeling.greedy import Greedy
from uniprune.modeling.loading import LoadedModel
from uniprune.results.fidelity import first_tokens
from uniprune.results.predictions import FirstToken


@dataclass(frozen=True)
class GeneratedText:
    """A generated row.

    Attributes:
        text: decoded text without special tokens.
        tokens: length in tokens, end of sequence included.
        first: distribution of the first token.
    """

    text: str
    tokens: int
    first: FirstToken


class FirstLogits(LogitsProcessor):  # type: ignore[misc]  # transformers is not typed
    """A logits processor that keeps the first step's logits; `output_logits` would keep those of all steps (GBs)."""

    logits: Tensor

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the [B, V] scores unchanged."""
        if not hasattr(self, "logits"):
            self.logits = scores
        return scores


class Generator:
    """Greedy decoding of a loaded model; a row's text does not depend on the other rows of its batch.

    Args:
        loaded: the model with its processor.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.model: Any = loaded.model
        self.tokenizer = loaded.processor.tokenizer
        self._decoding = Greedy.of(self.model, self.tokenizer)

    def tensors(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Move inputs to the model's device, floating point ones in its precision."""
        return {name: self._placed(torch.from_numpy(value)) for name, value in arrays.items()}

    @torch.inference_mode()
    def generate(self, rows: Sequence[EncodedRequest], features: dict[str, Any] | None = None) -> list[GeneratedText]:
        """Generate for every row, each cut at its own longest length.

        `features` are those of the rows' images, if these were encoded before.
        """
        inputs: dict[str, Any] = {
            name: self._placed(value) for name, value in collate(rows, self._decoding.pad).items()
        }
        if features is not None:
            inputs["mm_encoder_outputs"] = features
        first = FirstLogits()
        longest, processors = max(row.length for row in rows), LogitsProcessorList([first])
        output = self._decoding.generate(self.model, inputs, longest, logits_processor=processors)
        sequences = output[:, inputs["input_ids"].shape[1] :]
        firsts = first_tokens(first.logits)
        return [self._decoded(ids[: row.length], one) for ids, row, one in zip(sequences, rows, firsts, strict=True)]

    def _placed(self, value: Tensor) -> Tensor:
        return value.to(self.model.device, dtype=self.model.dtype if value.is_floating_point() else None)

    def _decoded(self, ids: Tensor, first: FirstToken) -> GeneratedText:
        """Decode up to the end of the sequence, without its end token, which a tokenizer may not call special."""
        tokens = ids.tolist()
        text = list(takewhile(lambda token: token not in self._decoding.ends, tokens))
        length = min(len(text) + 1, len(tokens))
        return GeneratedText(self.tokenizer.decode(text, skip_special_tokens=True).strip(), length, first)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Check whether GPU or CPU memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
