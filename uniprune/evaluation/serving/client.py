"""Requests to an OpenAI-compatible server: a total time limit, retries while it does not answer, one-line errors.

The package `openai` (extra `serving`) is imported on first use, so that other commands need none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from uniprune.errors import UserError

RETRIES = 4
"""Further attempts of a request whose connection broke, or that the server was too busy for: about ten seconds."""
LIMIT = 600.0
"""Seconds after which a request is given up, its attempts together."""
REFUSED = (400, 413, 422)
"""Status codes of requests that a server will never answer, such as a prompt longer than its context."""


class RefusedError(Exception):
    """A request that the server read and refused: a row of its own, not the server, is the reason."""


def package() -> ModuleType:
    """Import the client library.

    Raises:
        UserError: it is not installed.
    """
    try:
        import openai
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package {error.name} is missing, which talks to servers; run `pip install 'uniprune[serving]'`"
        ) from error
    return openai


def checked_address(address: str) -> str:
    """Return an address without a final slash and `/v1`.

    Raises:
        UserError: it is none of http or https.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(f"--server {address!r} must be an address such as http://127.0.0.1:8000")
    return address.rstrip("/").removesuffix("/v1")


@dataclass(frozen=True)
class Client:
    """Sends requests to one server, from one event loop (`Client.open`).

    Attributes:
        address: of the server, without `/v1`.
        limit: seconds after which a request is given up, its attempts together.
    """

    address: str
    limit: float
    _library: ModuleType
    _connection: Any

    @classmethod
    def open(cls, address: str, limit: float = LIMIT, retries: int = RETRIES) -> Client:
        """Return a client; `close` it."""
        library = package()
        connection = library.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=retries, timeout=limit)
        return cls(address, limit, library, connection)

    async def close(self) -> None:
        """Close its connections."""
        await self._connection.close()

    async def get(self, path: str) -> str:
        """Return the text at a path of the server.

        Raises:
            UserError: it does not answer.
        """
        with self._explained():
            async with asyncio.timeout(self.limit):
                root = self._connection.with_options(base_url=self.address)
                return str(await root.get(path, cast_to=str))

    async def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply to a chat request.

        Raises:
            RefusedError: the server refuses this request.
            UserError: it does not answer.
        """
        with self._explained():
            async with asyncio.timeout(self.limit):
                reply = await self._connection.post("/chat/completions", body=dict(body), cast_to=object)
        return dict(reply)

    async def stream(self, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Yield the pieces of a streamed reply as they arrive; the request is not sent a second time.

        Raises:
            RefusedError: the server refuses this request.
            UserError: it does not answer.
        """
        once = self._connection.with_options(max_retries=0)
        with self._explained():
            async with asyncio.timeout(self.limit):
                pieces = await once.post(
                    "/chat/completions",
                    body={**body, "stream": True},
                    cast_to=object,
                    stream=True,
                    stream_cls=self._library.AsyncStream[object],
                )
                async for piece in pieces:
                    yield dict(piece)

    @contextmanager
    def _explained(self) -> Any:
        """Re-raise errors of the client library inside the block."""
        library = self._library
        try:
            yield
        except TimeoutError as error:
            raise UserError(
                f"the server at {self.address} did not answer within {self.limit:g} s; give more with --timeout, or "
                "send less at a time (--batch-size)"
            ) from error
        except library.APIStatusError as error:
            if error.status_code in REFUSED:
                raise RefusedError(_reason(error)) from error
            raise UserError(
                f"the server at {self.address} answered with status {error.status_code}: {_reason(error)}"
            ) from error
        except library.APIConnectionError as error:
            raise UserError(
                f"the server at {self.address} cannot be reached ({error.__cause__ or error}); start it, or correct "
                "--server: every answer so far is stored, and the same command resumes"
            ) from error
        except (library.APIError, ValueError) as error:  # a reply in another form, a broken stream
            raise UserError(
                f"the server at {self.address} gave a reply that cannot be read: {error}; expected that of an "
                "OpenAI-compatible server"
            ) from error


def _reason(error: Any) -> str:
    """Return a server's own words, on one line."""
    body = error.body if isinstance(error.body, Mapping) else {}
    return " ".join(str(body.get("message") or error.message).split())
