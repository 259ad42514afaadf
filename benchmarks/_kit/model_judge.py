"""A judge model behind an OpenAI-compatible server, with its replies stored so that a failed scoring can be resumed."""

from __future__ import annotations

import json
import os
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniprune.errors import UserError
from uniprune.utils.files import JsonLines
from uniprune.utils.hashing import stable_hash

if TYPE_CHECKING:
    from .boot import Kit
    from .judges import Message, Replier

KEPT = (
    "nothing is lost: predictions and the judge's replies so far are kept, so run the same command again when it works"
)
PATIENCE = 20.0
"""Seconds that a server may take for each of three attempts at one word."""

_KEY = re.compile(r"[!-~]+")


def api_key() -> str | None:
    """Return the server's key, from the environment variable that clients of such servers share.

    Raises:
        UserError: it could not be sent; the message of whoever tried would show it.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if key and not _KEY.fullmatch(key):
        raise UserError(
            "OPENAI_API_KEY holds blanks, line breaks or other characters that a key cannot have; set it again"
        )
    return key or None


@dataclass(frozen=True)
class ModelJudge:
    """A model behind an OpenAI-compatible server (chat completions).

    Attributes:
        url: the server's base URL (…/v1), or the full one of its chat completions.
        model: model name sent to it; also the label of the scores.
        max_tokens: longest reply.
        key: bearer token. It is sent to that server, and never logged, stored or shown.
        threads: requests at a time.
        retries: attempts at one request.
        wait: seconds before the second attempt, doubled before each further one.
        timeout: seconds for one attempt.
    """

    url: str
    model: str
    max_tokens: int
    key: str | None = field(default=None, repr=False)
    threads: int = 4
    retries: int = 3
    wait: float = 2.0
    timeout: float = 300.0

    @property
    def label(self) -> str:
        """The model's name."""
        return self.model

    def check(self, name: str, table: Any) -> None:
        """Accept every table: a model can judge any row."""

    def check_available(self) -> None:
        """Request one word. A server that is up but slow, for example while it loads the model, gets a minute."""
        replace(self, wait=self.wait / 2, timeout=PATIENCE).send(
            self.request("Reply with the word ready."),
            "the model under test has not been run yet: start the server, or correct --judge, --judge-model or the "
            "key in OPENAI_API_KEY, and run the same command again",
        )

    def request(self, content: str | list[dict[str, Any]], temperature: float = 0.0) -> dict[str, Any]:
        """Build the body of a request with one message."""
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": temperature,
            "max_tokens": self.max_tokens,
        }

    def replier(self, kit: Kit, table: Any, workdir: Path) -> Replier:
        """Return a client that stores replies in `workdir/judge-replies.jsonl`."""
        return _StoredReplies(self, workdir / "judge-replies.jsonl")

    @property
    def endpoint(self) -> str:
        """The address requests are posted to."""
        ending = "/chat/completions"
        return self.url if self.url.endswith(ending) else self.url.rstrip("/") + ending

    def send(self, request: Mapping[str, Any], remedy: str = KEPT) -> str:
        """Post one request and return the reply; connection and server errors are retried.

        Raises:
            UserError: no usable reply; `remedy` ends the message.
        """
        post = urllib.request.Request(self.endpoint, json.dumps(request).encode(), {"Content-Type": "application/json"})
        if self.key:  # never sent to an address that the server redirects to
            post.add_unredirected_header("Authorization", f"Bearer {self.key}")
        local = urllib.parse.urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")
        # A proxy of the shell cannot reach a server on this very machine.
        opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))
        reason = ""
        for attempt in range(self.retries):
            if attempt:
                time.sleep(self.wait * 2 ** (attempt - 1))
            try:
                with opener.open(post, timeout=self.timeout) as reply:
                    return str(json.load(reply)["choices"][0]["message"]["content"] or "")
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}: {error.read(200).decode(errors='replace')}"
                if error.code < 500 and error.code != 429:
                    break
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                reason = f"{type(error).__name__}: {error}"
        if self.key:
            reason = reason.replace(self.key, "***")
        raise UserError(f"the judge {self.model!r} at {self.url} gave no answer ({reason}); {remedy}")


@dataclass
class _StoredReplies:
    """Replies of a model judge, stored by the full request; after a failure every further request fails at once.

    Attributes:
        judge: the model.
        path: file of the replies.
    """

    judge: ModelJudge
    path: Path
    _lines: JsonLines[tuple[str, str]] = field(init=False)
    _replies: dict[str, str] = field(init=False)
    _failure: UserError | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._lines = JsonLines(self.path, _stored_reply, "a judge's reply", "delete that line: only it is asked again")
        self._replies = dict(self._lines.read())

    def working(self) -> bool:
        return True

    def generate(self, message: Message, temperature: float = 0.0) -> str:
        request = self.judge.request(_content(message), temperature)
        digest = stable_hash([self.judge.endpoint, request])
        if digest in self._replies:
            return self._replies[digest]
        if self._failure is not None:  # the kit has queued all rows already; do not wait for each of them
            raise self._failure
        try:
            reply = self.judge.send(request)
        except UserError as error:
            self._failure = error
            raise
        with self._lock:  # threads of the kit share this object
            self._lines.append([{"request": digest, "reply": reply}])
            self._replies[digest] = reply
        return reply


def _stored_reply(line: dict[str, str]) -> tuple[str, str]:
    """Return request hash and reply of a line.

    Raises:
        ValueError: the line has none.
    """
    try:
        return line["request"], line["reply"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{error} is missing") from error


def _content(message: Message) -> str | list[dict[str, Any]]:
    """Convert the kit's message to OpenAI's form; its images are data URLs already."""
    if isinstance(message, str):
        return message
    return [
        {"type": "image_url", "image_url": {"url": part["value"], "detail": "low"}}
        if part["type"] == "image"
        else {"type": "text", "text": part["value"]}
        for part in message
    ]
