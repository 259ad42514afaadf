"""The backend that sends rows to serving engines (`--backend vllm`)."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from uniprune.errors import UserError
from uniprune.evaluation.backend import Predictor
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.environment import environment
from uniprune.evaluation.feature_cache import FeatureCache
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.processing import EncodedRequest
from uniprune.evaluation.serving.chat import ChatEncoder, body, generated
from uniprune.evaluation.serving.client import LIMIT, RETRIES, Client, RefusedError, checked_address
from uniprune.evaluation.serving.info import ENGINE, ServerInfo, read_info
from uniprune.evaluation.serving.prompt_check import kept_tokens
from uniprune.evaluation.workers import windows
from uniprune.modeling.context import context_length, rotary_positions
from uniprune.modeling.greedy import Greedy
from uniprune.modeling.loading import LoadedModel, with_generation_config
from uniprune.pruning.base import Pruner
from uniprune.results.predictions import Prediction
from uniprune.results.records import Environment, MethodRecord, ServingRecord, Setup
from uniprune.results.remarks import CONTEXT, CUT


@dataclass(frozen=True)
class Served:
    """Servers, each with one method on one checkpoint; a run is answered by the one that serves its method.

    Attributes:
        addresses: of the servers.
        timeout: seconds after which a request is given up, its attempts together.
        retries: further attempts, as in `Client.open`.
    """

    addresses: tuple[str, ...]
    timeout: float = LIMIT
    retries: int = RETRIES

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise UserError(f"--timeout {self.timeout:g} must be above 0 seconds")
        object.__setattr__(self, "addresses", tuple(dict.fromkeys(map(checked_address, self.addresses))))

    @cached_property
    def servers(self) -> list[ServerInfo]:
        """Descriptions of all servers, read once.

        Raises:
            UserError: one does not answer, or does not describe itself.
        """
        return [read_info(address, self.timeout) for address in self.addresses]

    def load(self, outlined: LoadedModel) -> LoadedModel:
        """Read the checkpoint's generation settings, which name the ends of a sequence; weights stay unread."""
        return with_generation_config(outlined)

    def described(self, model: LoadedModel) -> str:
        """Return the servers and their methods."""
        return ", ".join(f"{server.label} at {server.address}" for server in self.servers)

    def setup(self, model: LoadedModel, method: MethodRecord) -> dict[str, Any]:
        """Return what the server says of itself.

        Raises:
            UserError: no server serves the method on these weights, or rows cannot be sent as they are.
        """
        if model.image_processor.keys() - {"class"}:
            raise UserError(
                f"model {model.entry.name} has image settings in configs/models.yaml, which servers do not take with "
                "a request; give --images checkpoint"
            )
        server = self._serving(method, model.weights)
        serving = ServingRecord(engine=ENGINE, version=server.version)
        return {"dtype": server.dtype, "attention": ENGINE, "device": server.device, "serving": serving}

    def predictor(
        self,
        model: LoadedModel,
        pruner: Pruner,
        options: RunOptions,
        average: float | None,
        shared: FeatureCache | None,
        setup: Setup,
    ) -> AbstractContextManager[Predictor]:
        """Return a client of the server that serves the method, as it describes itself now.

        Raises:
            UserError: none serves it any more.
        """
        server = dataclasses.replace(self)._serving(setup.method, setup.weights)
        return nullcontext(ServedPredictor(model, pruner, options, server, self))

    def environment(self, setup: Setup) -> Environment:
        """Return versions of this process and of the engine, and the server's machine."""
        server, own = self._serving(setup.method, setup.weights), environment("cpu")
        return own.model_copy(update={"versions": {**own.versions, ENGINE: server.version}, "device": server.machine})

    def _serving(self, method: MethodRecord, weights: str) -> ServerInfo:
        """Return the server that serves a method on a checkpoint.

        Raises:
            UserError: none does; the message says in what each differs.
        """
        differences = [(server, server.differences(method, weights)) for server in self.servers]
        found = next((server for server, problems in differences if not problems), None)
        if found is not None:
            return found
        each = "; ".join(f"{server.address} has {', '.join(problems)}" for server, problems in differences)
        raise UserError(
            f"no server serves {method.spelled_out}: {each}. Start vLLM with this method, ratio and positions "
            "(--hf-overrides; docs/serving.md), or give the fields of the server's method with --set"
        )


class ServedPredictor:
    """Sends rows to one server, a number of them at a time.

    Args:
        model: the checkpoint, without weights.
        pruner: the method that the server runs.
        options: settings of the run; its batch size is the number of requests in flight.
        server: the server.
        settings: limits of requests.
    """

    def __init__(
        self, model: LoadedModel, pruner: Pruner, options: RunOptions, server: ServerInfo, settings: Served
    ) -> None:
        self._model, self._pruner, self._options, self._server = model, pruner, options, server
        self._settings, self._tokenizer = settings, model.processor.tokenizer
        self._ends = Greedy.of(model.model, self._tokenizer).ends
        decoder = model.adapter.decoder.config
        self._context = context_length(decoder)
        self._one_axis = not any("mrope_section" in kind for kind in rotary_positions(decoder))

    def predictions(
        self, requests: Sequence[Request], data: str = "", benchmark: str = ""
    ) -> Iterator[list[Prediction]]:
        """Yield predictions as they arrive; a row that the server refuses has the reason.

        Raises:
            UserError: rows have videos, the server does not answer, or it makes other prompts of them.
        """
        if any(request.videos for request in requests):
            raise UserError(f"{benchmark} asks about videos, which --backend vllm does not send; leave it out")
        flight = self._options.batch_size
        rows = chain.from_iterable(windows(self._encoder(benchmark), requests, flight, self._options.workers))
        with asyncio.Runner() as loop:
            client = Client.open(self._server.address, self._settings.timeout, self._settings.retries)
            waiting: set[asyncio.Task[Prediction]] = set()
            try:
                loop.run(self._try(client))
                while True:
                    for row in rows:
                        waiting.add(loop.get_loop().create_task(self._answer(client, row)))
                        if len(waiting) == flight:
                            break
                    if not waiting:
                        return
                    done, waiting = loop.run(_first(waiting))
                    failed = [task for task in done if task.exception() is not None]
                    if answered := done.difference(failed):
                        yield [task.result() for task in answered]
                    for task in failed:
                        task.result()
            finally:
                loop.run(_end(client, waiting))

    def _encoder(self, benchmark: str) -> ChatEncoder:
        """Return the encoder of the rows of a benchmark."""
        options = self._options
        return ChatEncoder(
            self._model.processor_for(benchmark),
            any(stage.pruner.prompt_aware for stage in self._pruner.schedule(self._model.num_layers)),
            decoding=options.image_decoding,
            question=options.question,
            sampling=options.sampling,
            mixes=self._model.adapter.mixes,
        )

    async def _try(self, client: Client) -> None:
        """Send a short request without an image.

        Raises:
            UserError: the server refuses it, so that it would refuse all rows.
        """
        text = {"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}]}]}
        try:
            await client.chat(body(EncodedRequest("", length=1, chat=text), self._server.model, self._ends))
        except RefusedError as error:
            raise UserError(f"the server at {client.address} refuses every request: {error}") from error

    async def _answer(self, client: Client, row: EncodedRequest) -> Prediction:
        """Return the prediction of a row."""
        if row.error is not None:
            return Prediction(index=row.index, prediction="", error=row.error)
        try:
            reply = await client.chat(body(row, self._server.model, self._ends))
        except RefusedError as error:
            return Prediction(index=row.index, prediction="", error=f"the server refuses it: {error}")
        text = generated(reply, row, self._tokenizer, self._ends)
        own, visual = row.inputs["input_ids"][0].tolist(), self._model.adapter.visual_token_ids
        ratio = 1.0 if self._pruner.kind == "none" else self._pruner.ratio
        served = reply["prompt_token_ids"]
        kept = kept_tokens(own, served, visual, ratio, row.index)
        positions = len(own) + text.tokens - 1 if self._one_axis else None
        beyond = self._context is not None and positions is not None and positions > self._context
        return Prediction(
            index=row.index,
            prediction=text.text,
            batching=f"{self._options.batch_size} in flight",
            new_tokens=text.tokens,
            first=text.first,
            remarks=[*row.remarks, *[CONTEXT] * beyond, *[CUT] * text.cut],
            visual_tokens=[kept] * self._model.num_layers,
            requested=float(kept),  # as many as the ratio leaves, or `kept_tokens` would have failed
            initial=sum(token in visual for token in own),
            text_tokens=len(served) - kept,
            positions=positions,
        )


async def _first(
    waiting: set[asyncio.Task[Prediction]],
) -> tuple[set[asyncio.Task[Prediction]], set[asyncio.Task[Prediction]]]:
    """Wait until one or more are done; return those, and the others."""
    return await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)


async def _end(client: Client, waiting: set[asyncio.Task[Prediction]]) -> None:
    """Give up the requests in flight, and close the client."""
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await client.close()
