"""From encoded rows to model inputs and from generated tokens to text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from uniprune.encoding import Encoded, collate
from uniprune.fidelity import FirstToken, first_tokens
from uniprune.loading import LoadedModel


@dataclass(frozen=True)
class Reply:
    """One row's answer, its length in tokens (end of answer included), and the distribution its first token came of."""

    text: str
    tokens: int
    first: FirstToken


class FirstLogits(LogitsProcessor):
    """Keeps a reference to the first step's logits; `output_logits` of `generate` would keep all steps' (gigabytes)."""

    logits: Tensor

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[B, V] scores, unchanged."""
        if not hasattr(self, "logits"):
            self.logits = scores
        return scores


class Chat:
    """Speaks a loaded model's chat format. Greedy; a row's answer does not depend on the rows beside it.

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
        """Inputs on the model's device, floating point ones in its precision."""
        return {name: self._placed(torch.from_numpy(value)) for name, value in arrays.items()}

    @torch.inference_mode()
    def generate(self, rows: Sequence[Encoded], features: dict[str, Any] | None = None) -> list[Reply]:
        """Answer every row greedily, each cut at its own longest length.

        `features` are those of the rows' pictures where these were encoded before.
        """
        inputs: dict[str, Any] = {name: self._placed(value) for name, value in collate(rows, self._pad).items()}
        if features is not None:
            inputs["mm_encoder_outputs"] = features
        start = FirstLogits()
        output = self.model.generate(
            **inputs,
            max_new_tokens=max(row.length for row in rows),
            pad_token_id=self._pad,
            do_sample=False,
            num_beams=1,
            # Checkpoints ship sampling settings, some a repetition penalty; neither may bend greedy decoding.
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,
            logits_processor=LogitsProcessorList([start]),
        )
        answers = output[:, inputs["input_ids"].shape[1] :]
        firsts = first_tokens(start.logits)
        return [self._reply(ids[: row.length], first) for ids, row, first in zip(answers, rows, firsts, strict=True)]

    def _placed(self, value: Tensor) -> Tensor:
        return value.to(self.model.device, dtype=self.model.dtype if value.is_floating_point() else None)

    def _reply(self, ids: Tensor, first: FirstToken) -> Reply:
        """Decode up to the end of the answer."""
        tokens = ids.tolist()
        end = next((i for i, token in enumerate(tokens, start=1) if token in self._ends), len(tokens))
        return Reply(self.tokenizer.decode(tokens[:end], skip_special_tokens=True).strip(), end, first)
