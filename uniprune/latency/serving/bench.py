"""All series under load, in turn, so that drift of the machine favours none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from uniprune.errors import UserError
from uniprune.evaluation.serving.client import Client
from uniprune.evaluation.serving.info import ENGINE, ServerInfo
from uniprune.latency.serving.load import Load, apply_load, timed
from uniprune.latency.serving.options import LoadOptions
from uniprune.latency.serving.requests import image_requests, text_requests
from uniprune.latency.serving.rows import SHORT, ServeFile, ServeResult, ServeRow, ServeSetup, common_fields
from uniprune.utils.console import RunProgress

ALIKE = ("weights", "dtype", "device", "machine", "version")
"""Fields in which servers must agree to be compared."""
PROBES = (4, 36)
"""Words of the two prompts that show how many tokens a word has."""

Bodies = Callable[[int, int], Iterator[dict[str, Any]]]
"""From round and concurrency to requests."""


@dataclass(frozen=True)
class Series:
    """Requests of one kind to one server.

    Attributes:
        name: the server's method, or `SHORT`.
        server: the server.
        client: its client.
        bodies: its requests.
        fields: those of `ServeSetup` that differ from the options.
    """

    name: str
    server: ServerInfo
    client: Client
    bodies: Bodies
    fields: dict[str, Any]

    async def load(self, options: LoadOptions, round_: int, concurrency: int) -> Load:
        """Apply the load of one round."""
        model = self.server.model
        bodies = ({**body, "model": model} for body in self.bodies(round_, concurrency))
        return await apply_load(self.client, bodies, options.requests, concurrency)

    async def prompt(self, body: dict[str, Any]) -> int:
        """Return how many tokens reach the language model of a request's prompt."""
        return (await timed(self.client, {**body, "model": self.server.model})).prompt

    def setup(self, options: LoadOptions, concurrency: int) -> ServeSetup:
        """Return what determines the measurement at one concurrency."""
        server = self.server
        names = ("code", "weights", "model", "dtype", "device", "machine")
        own = {name: getattr(server, name) for name in names}
        resolved = {} if self.name in ("none", SHORT) else server.resolved
        fields = {**common_fields(options, concurrency), **own, **self.fields, "resolved": resolved}
        return ServeSetup(series=self.name, engine=f"{ENGINE} {server.version}", **fields)


class ServeBench:
    """All series of some servers.

    Args:
        servers: one per method, of one checkpoint.
        options: load and prompts.
        file: store of rows, with finished ones.
        progress: counts requests.
        timeout: seconds that a request may take.

    Raises:
        UserError: servers differ in more than their method, or two serve the same.
    """

    def __init__(
        self,
        servers: Sequence[ServerInfo],
        options: LoadOptions,
        file: ServeFile,
        progress: RunProgress,
        timeout: float,
    ) -> None:
        check_alike(servers)
        self._servers = sorted(servers, key=lambda server: server.method != "none")
        self._options, self._file, self._progress, self._timeout = options, file, progress, timeout

    def run(self) -> list[ServeRow]:
        """Measure what is not stored yet; return rows in order of concurrency and series.

        Raises:
            UserError: a server does not answer, or refuses a request.
        """
        return asyncio.run(self._run())

    async def _run(self) -> list[ServeRow]:
        async with AsyncExitStack() as stack:
            series = []
            for server in self._servers:
                client = Client.open(server.address, self._timeout)
                stack.push_async_callback(client.close)
                bodies = partial(image_requests, self._options)
                series.append(Series(server.method, server, client, bodies, {}))
            series += await self._short(series)
            return [row for n in self._options.concurrency for row in await self._group(series, n)]

    async def _short(self, series: Sequence[Series]) -> list[Series]:
        """Warm all servers up; return the series of short prompts, if servers with and without pruning are there."""
        options, lengths = self._options, {}
        for one in series:
            bodies = one.bodies(options.rounds, 0)  # of no measured round
            lengths[one.name] = [await one.prompt(next(bodies)) for _ in range(options.warmup + 1)][-1]
        pruned = [length for name, length in lengths.items() if name != "none"]
        if "none" not in lengths or not pruned:
            return []
        plain = series[0]
        few, many = [await plain.prompt(next(text_requests(options, 0, 0, words))) for words in PROBES]
        per_word = (many - few) / (PROBES[1] - PROBES[0])
        words = max(1, PROBES[0] + round((min(pruned) - few) / per_word))
        texts = partial(_texts, options, words)
        return [Series(SHORT, plain.server, plain.client, texts, {"short": words})]

    async def _group(self, series: Sequence[Series], concurrency: int) -> list[ServeRow]:
        """Measure all series at one concurrency, unless they are stored."""
        options = self._options
        setups = [one.setup(options, concurrency) for one in series]
        stored = [self._file.rows.get(setup.identity()) for setup in setups]
        known = [row for row in stored if row is not None]
        if len(known) == len(series):
            self._progress.advance(len(series) * options.rounds * options.requests)
            return known
        loads: list[list[Load]] = [[] for _ in series]
        for round_ in range(options.rounds):
            for step in range(len(series)):
                number = (step + round_) % len(series)
                one = series[number]
                self._progress.begin(f"{one.name} · {concurrency} in flight")
                loads[number].append(await one.load(options, round_, concurrency))
                self._progress.advance(options.requests)
        rows = [
            ServeRow(identity=setup.identity(), setup=setup, measured=ServeResult.of(own))
            for setup, own in zip(setups, loads, strict=True)
        ]
        self._file.append(rows)
        return rows


def check_alike(servers: Sequence[ServerInfo]) -> None:
    """Check that servers differ in their method only.

    Raises:
        UserError: they differ in something else, or do not differ.
    """
    first = servers[0]
    for server in servers[1:]:
        for name in ALIKE:
            if getattr(server, name) != getattr(first, name):
                raise UserError(
                    f"servers cannot be compared: {first.address} has {name} {getattr(first, name)}, {server.address} "
                    f"{getattr(server, name)}; start both on one machine and checkpoint, with equal options"
                )
    labels = [server.label for server in servers]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise UserError(f"several servers serve {twice}; give each method and ratio once")


def _texts(options: LoadOptions, words: int, round_: int, concurrency: int) -> Iterator[dict[str, Any]]:
    """Yield requests without an image."""
    return text_requests(options, round_, concurrency, words)
