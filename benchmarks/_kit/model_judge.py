"""A judge model behind an OpenAI-compatible server, with its replies stored so that a failed scoring can be resumed."""

from __future__ import annotations

import os
import re
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniprune.errors import UserError
from uniprune.utils.files import JsonLines
from uniprune.utils.hashing import stable_hash
from uniprune.utils.json_text import to_json

from .judge_reply import SHOWN, BadReplyError, post, printable, unusable

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
        system: message that goes before every request, as in the kit; empty for none.
        threads: requests at a time.
        retries: attempts at one request.
        wait: seconds before the second attempt, doubled before each further one.
        timeout: seconds for one attempt.
    """

    url: str
    model: str
    max_tokens: int
    key: str | None = field(default=None, repr=False)
    system: str = ""
    threads: int = 4
    retries: int = 3
    wait: float = 2.0
    timeout: float = 300.0

    @property
    def note(self) -> str:
        """Return nothing: its verdicts were not compared with the benchmarks'."""
        return ""

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
            "messages": [
                *([{"role": "system", "content": self.system}] if self.system else []),
                {"role": "user", "content": content},
            ],
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

        Redirects are not followed: the new address would get no question.

        Raises:
            UserError: the address is not valid, or no usable reply; `remedy` ends the message.
        """
        reason = ""
        for attempt in range(self.retries):
            if attempt:
                time.sleep(self.wait * 2 ** (attempt - 1))
            try:
                return post(self._packed(request), self.model, self.timeout)
            except BadReplyError as error:
                reason = str(error)
                if error.final:
                    break
        if self.key:  # before the text is cut: a part of the key is a secret too
            reason = reason.replace(self.key, "***")
        reason = printable(reason)[:SHOWN]
        raise UserError(f"the judge {self.model!r} at {self.url} gave no answer ({reason}); {remedy}")

    def _packed(self, request: Mapping[str, Any]) -> urllib.request.Request:
        """Return the HTTP request.

        Raises:
            UserError: the address is not valid.
        """
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        try:
            packed = urllib.request.Request(self.endpoint, to_json(request).encode(), headers)
            parts = urllib.parse.urlsplit(self.endpoint)
            usable = bool(parts.hostname) and (parts.port or 1) > 0 and not re.search(r"[^!-~]", self.endpoint)
        except ValueError:
            usable = False
        if not usable or parts.username is not None:
            shown = re.sub(r"//[^/]*@", "//***@", printable(self.url))
            raise UserError(
                f"judge {shown!r} is not the address of a server, such as http://localhost:8000/v1 (a key is given in "
                "OPENAI_API_KEY)"
            )
        if self.key:
            packed.add_unredirected_header("Authorization", f"Bearer {self.key}")
        return packed


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
        ValueError: the line has none, or a reply that cannot be used.
    """
    try:
        digest, reply = line["request"], line["reply"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{error} is missing") from error
    if problem := unusable(reply):
        raise ValueError(f"the reply is {problem}")
    return digest, reply


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
