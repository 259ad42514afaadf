"""Requests kept in flight, each timed: first token, last token."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from uniprune.errors import UserError
from uniprune.evaluation.serving.client import Client, RefusedError
from uniprune.evaluation.serving.info import totals


@dataclass(frozen=True)
class Answered:
    """Times of one request.

    Attributes:
        ttft: seconds from sending it to its first token.
        tpot: seconds per further token.
        prompt: tokens of the prompt, as the server counts them.
    """

    ttft: float
    tpot: float
    prompt: int


@dataclass(frozen=True)
class Load:
    """Requests of one series at one concurrency in one round.

    Attributes:
        seconds: from the first request to the last answer.
        answered: the requests.
        spent: growth of the server's metrics, by name.
    """

    seconds: float
    answered: list[Answered]
    spent: Mapping[str, float]


async def apply_load(client: Client, bodies: Iterator[dict[str, Any]], count: int, concurrency: int) -> Load:
    """Send `count` requests, `concurrency` at a time: a new one as soon as one is answered.

    Raises:
        UserError: the server does not answer or refuses one; a part of the load would be no measurement.
    """
    waiting = [next(bodies) for _ in range(count)][::-1]  # images are drawn and packed before the clock starts
    answered: list[Answered] = []

    async def work() -> None:
        while waiting:
            answered.append(await timed(client, waiting.pop()))

    before = totals(await client.get("/metrics"))
    start = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, count)):
            group.create_task(work())
    seconds = perf_counter() - start
    after = totals(await client.get("/metrics"))
    return Load(seconds, answered, {name: value - before.get(name, 0.0) for name, value in after.items()})


async def timed(client: Client, body: Mapping[str, Any]) -> Answered:
    """Send one request and take its times.

    Raises:
        UserError: as `apply_load`, or it is answered with another number of tokens than it wants.
    """
    start = perf_counter()
    first = last = None
    tokens, prompt = 0, 0
    try:
        async for piece in client.stream(body):
            choices = piece.get("choices") or [{}]
            if new := len(choices[0].get("token_ids") or ()):
                last = perf_counter()
                first = last if first is None else first
                tokens += new
            prompt = (piece.get("usage") or {}).get("prompt_tokens", prompt)
    except RefusedError as error:
        raise UserError(f"the server at {client.address} refuses a request of the load: {error}") from error
    if first is None or last is None or tokens != body["max_tokens"] or not prompt:
        raise UserError(
            f"the server at {client.address} answered {tokens} of {body['max_tokens']} tokens to a request of the "
            "load, or without token ids and usage; expected vLLM's streamed form"
        )
    return Answered(first - start, (last - first) / (tokens - 1), int(prompt))
