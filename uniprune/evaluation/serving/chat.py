"""Rows as chat requests, and replies as generated text."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from itertools import takewhile
from math import exp
from typing import Any

from PIL.Image import Image

from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.generation import GeneratedText
from uniprune.evaluation.processing import EncodedRequest, RequestEncoder
from uniprune.modeling.messages import Part
from uniprune.results.fidelity import DIGITS, TOKENS
from uniprune.results.predictions import FirstToken

GREEDY: Mapping[str, Any] = {
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "n": 1,
    "min_tokens": 0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Settings of greedy decoding. All are given: a server takes others from the checkpoint's generation_config.json."""
NOT_A_NUMBER = -9999.0
"""The log-probability that vLLM sends for NaN and minus infinity."""


QUESTION = "uniprune_question"
"""Argument of the served processor that has the bare question, for methods that read it."""


class ChatEncoder(RequestEncoder):
    """Encodes rows as requests to a server, beside the un-pruned prompt that it must make of them.

    Args:
        processor: as in `RequestEncoder`.
        names_question: send the bare question, too.
        settings: the other arguments of `RequestEncoder`.
    """

    def __init__(self, processor: Any, names_question: bool = False, **settings: Any) -> None:
        super().__init__(processor, **settings)
        self.names_question = names_question

    def _encode(self, request: Request, parts: Sequence[Part]) -> EncodedRequest:
        """Process a row, of which the pixels are sent as images."""
        row = super()._encode(request, parts)
        starts = self.needs_start(self._template.render(parts))
        chat: dict[str, Any] = {"messages": messages(parts), "add_special_tokens": starts}
        if self.names_question:
            chat["mm_processor_kwargs"] = {QUESTION: request.question}
        return dataclasses.replace(row.without_pixels(), chat=chat)


def messages(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return a user message, and the system message before it, in the form of the OpenAI interface."""
    system = [{"type": "text", "text": part.text} for part in parts if part.system]
    user = [
        {"type": "text", "text": part.text}
        if part.image is None
        else {"type": "image_url", "image_url": {"url": data_url(part.image)}}
        for part in parts
        if not part.system
    ]
    own = [{"role": "user", "content": user}]
    return [{"role": "system", "content": system}, *own] if system else own


def data_url(image: Image) -> str:
    """Return an RGB image as PNG, which keeps every pixel."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def body(row: EncodedRequest, model: str, ends: Sequence[int]) -> dict[str, Any]:
    """Return the request of a row: greedy, up to its longest length, with the ids of everything.

    Args:
        row: the row, encoded by `ChatEncoder`.
        model: the server's name of the model.
        ends: ids that end a sequence.
    """
    return {
        **GREEDY,
        **(row.chat or {}),
        "model": model,
        "max_tokens": row.length,
        "stop_token_ids": list(ends),
        "logprobs": True,
        "top_logprobs": TOKENS,
        "return_tokens_as_token_ids": True,
        "return_token_ids": True,
    }


def generated(reply: Mapping[str, Any], row: EncodedRequest, tokenizer: Any, ends: Sequence[int]) -> GeneratedText:
    """Return the text of a reply, decoded as a model in this process decodes it.

    Raises:
        UserError: the reply lacks ids or probabilities, the logits are not finite, or another token ended it than one
            that ends a sequence in this process.
    """
    try:
        [choice] = reply["choices"]
        ids = [int(token) for token in choice["token_ids"]]
        reason = choice["finish_reason"]
        first = choice["logprobs"]["content"][0]["top_logprobs"]
        logs = {int(one["token"].removeprefix("token_id:")): float(one["logprob"]) for one in first}
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"the server's reply to row {row.index} lacks token ids or log-probabilities ({type(error).__name__}: "
            f"{error}); --backend vllm needs a server of vLLM with --max-logprobs of at least {TOKENS}"
        ) from error
    if max(logs.values(), default=NOT_A_NUMBER) <= NOT_A_NUMBER:
        raise UserError(
            f"the served model's logits are NaN or infinite for row {row.index}, so it has no prediction; start the "
            "server with --dtype bfloat16 or float32"
        )
    text = list(takewhile(lambda token: token not in ends, ids))
    cut = len(text) == len(ids)
    if cut and reason != "length":
        raise UserError(
            f"the server ended row {row.index} with token {ids[-1:]} ({reason}), which ends no "
            f"sequence of this checkpoint (these do: {list(ends)}); start it without stop words, on the same files"
        )
    length = len(text) + (not cut)
    return GeneratedText(tokenizer.decode(text, skip_special_tokens=True).strip(), length, first_token(logs), cut)


def first_token(logs: Mapping[int, float]) -> FirstToken:
    """Return a distribution as `uniprune.results.fidelity.first_tokens` makes it of logits."""
    likely = sorted(logs, key=lambda token: -logs[token])[:TOKENS]
    return FirstToken(
        ids=likely,
        logs=[min(0.0, round(logs[token], DIGITS)) for token in likely],
        rest=max(0.0, 1 - sum(exp(logs[token]) for token in likely)),
    )
