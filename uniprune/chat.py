"""From encoded rows to model inputs and from generated tokens to text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniprune.encoding import Encoded, collate
from uniprune.loading import LoadedModel


@dataclass(frozen=True)
class Reply:
    """One row's answer and its length in tokens, end of answer included."""

    text: str
    tokens: int


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

        `features` stand in for the rows' pixels where they were encoded before.
        """
        if features is not None:
            rows = [row.without_pixels() for row in rows]
        inputs: dict[str, Any] = {name: self._placed(value) for name, value in collate(rows, self._pad).items()}
        if features is not None:
            inputs["mm_encoder_outputs"] = features
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
        )
        answers = output[:, inputs["input_ids"].shape[1] :]
        return [self._reply(ids[: row.length]) for ids, row in zip(answers, rows, strict=True)]

    def _placed(self, value: Tensor) -> Tensor:
        return value.to(self.model.device, dtype=self.model.dtype if value.is_floating_point() else None)

    def _reply(self, ids: Tensor) -> Reply:
        """Decode up to the end of the answer."""
        tokens = ids.tolist()
        end = next((i for i, token in enumerate(tokens, start=1) if token in self._ends), len(tokens))
        return Reply(self.tokenizer.decode(tokens[:end], skip_special_tokens=True).strip(), end)
