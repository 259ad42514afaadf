"""Greedy generation with a loaded model: batches of encoded rows in, texts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from uniprune.evaluation.processing import EncodedRequest, collate
from uniprune.modeling.greedy import greedy
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
        ends = self.model.generation_config.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends])
        pad = self.tokenizer.pad_token_id
        self._pad = min(self._ends) if pad is None else pad

    def tensors(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Move inputs to the model's device, floating point ones in its precision."""
        return {name: self._placed(torch.from_numpy(value)) for name, value in arrays.items()}

    @torch.inference_mode()
    def generate(self, rows: Sequence[EncodedRequest], features: dict[str, Any] | None = None) -> list[GeneratedText]:
        """Generate for every row, each cut at its own longest length.

        `features` are those of the rows' images, if these were encoded before.
        """
        inputs: dict[str, Any] = {name: self._placed(value) for name, value in collate(rows, self._pad).items()}
        if features is not None:
            inputs["mm_encoder_outputs"] = features
        first = FirstLogits()
        output = self.model.generate(
            **inputs,
            **greedy(max(row.length for row in rows)),
            pad_token_id=self._pad,
            logits_processor=LogitsProcessorList([first]),
        )
        sequences = output[:, inputs["input_ids"].shape[1] :]
        firsts = first_tokens(first.logits)
        return [self._decoded(ids[: row.length], one) for ids, row, one in zip(sequences, rows, firsts, strict=True)]

    def _placed(self, value: Tensor) -> Tensor:
        return value.to(self.model.device, dtype=self.model.dtype if value.is_floating_point() else None)

    def _decoded(self, ids: Tensor, first: FirstToken) -> GeneratedText:
        """Decode up to the end of the sequence."""
        tokens = ids.tolist()
        end = next((i for i, token in enumerate(tokens, start=1) if token in self._ends), len(tokens))
        return GeneratedText(self.tokenizer.decode(tokens[:end], skip_special_tokens=True).strip(), end, first)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Check whether GPU or CPU memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
