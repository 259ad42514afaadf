"""From requests to model inputs and from generated tokens to text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uniprune.benchmark import Part, Request
from uniprune.loading import LoadedModel


@dataclass(frozen=True)
class Batch:
    """Encoded requests.

    Attributes:
        inputs: keyword arguments of `generate`, rows padded on the left.
        questions: [M] token ids of each bare question. lengths: longest answer per row, in tokens.
    """

    inputs: dict[str, Any]
    questions: tuple[Tensor, ...]
    lengths: tuple[int, ...]


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
        self.processor = loaded.processor
        self.tokenizer = loaded.processor.tokenizer
        ends = self.model.generation_config.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends])
        pad = self.tokenizer.pad_token_id
        self._pad = min(self._ends) if pad is None else pad

    def encode(self, requests: Sequence[Request]) -> Batch:
        """Chat template, image processor and tokenizer for a batch of requests that all have, or all lack, images."""
        prompts = self.processor.apply_chat_template(
            [message(request.parts) for request in requests], tokenize=False, add_generation_prompt=True
        )
        images = [[part.image for part in request.parts if part.image is not None] for request in requests]
        inputs = self.processor(
            text=prompts,
            images=images if any(images) else None,
            add_special_tokens=self._needs_start(prompts[0]),
            padding=True,
            return_tensors="pt",
        )
        inputs = inputs.to(self.model.device, dtype=self.model.dtype)
        ids = self.tokenizer([request.question for request in requests], add_special_tokens=False)["input_ids"]
        questions = tuple(torch.tensor(row, dtype=torch.long) for row in ids)
        return Batch(dict(inputs), questions, tuple(request.max_new_tokens for request in requests))

    @torch.inference_mode()
    def generate(self, batch: Batch) -> list[Reply]:
        """Answer every row greedily, each cut at its own longest length."""
        output = self.model.generate(
            **batch.inputs,
            max_new_tokens=max(batch.lengths),
            pad_token_id=self._pad,
            do_sample=False,
            num_beams=1,
            # Checkpoints ship sampling settings, some a repetition penalty; neither may bend greedy decoding.
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,
        )
        answers = output[:, batch.inputs["input_ids"].shape[1] :]
        return [self._reply(row[:length]) for row, length in zip(answers, batch.lengths, strict=True)]

    def _reply(self, ids: Tensor) -> Reply:
        """Decode up to the end of the answer."""
        tokens = ids.tolist()
        end = next((i for i, token in enumerate(tokens, start=1) if token in self._ends), len(tokens))
        return Reply(self.tokenizer.decode(tokens[:end], skip_special_tokens=True).strip(), end)

    def _needs_start(self, prompt: str) -> bool:
        """Whether the tokenizer must still add its start token: templates that write it themselves would double it."""
        start = self.tokenizer.bos_token
        return not (start and prompt.startswith(start))


def message(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """The user message in the form chat templates expect."""
    content = [{"type": "image"} if part.image is not None else {"type": "text", "text": part.text} for part in parts]
    return [{"role": "user", "content": content}]
