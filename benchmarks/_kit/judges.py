"""Judges for the datasets VLMEvalKit does not score by matching alone: handed to the kit as objects, never by name."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions
from uniprune.utils.files import JsonLines
from uniprune.utils.hashing import stable_hash

from .boot import Kit, replaced
from .task import Judging

_PLAIN = re.compile(r"[!-~]+")

KEPT = (
    "nothing is lost: predictions and the judge's replies so far are kept, so run the same command again when it works"
)
PATIENCE = 20.0
"""Seconds that a server may take for each of three attempts at one word."""

Message = str | list[dict[str, str]]
"""What the kit sends a judge: a text, or parts of `type` "text" or "image" with a `value`."""


class Replier(Protocol):
    """What the kit asks of a judge."""

    def working(self) -> bool:
        """Whether it can be asked."""

    def generate(self, message: Message, temperature: float = 0.0) -> str:
        """The reply to one message."""


class Judge(Protocol):
    """A way to judge."""

    @property
    def label(self) -> str:
        """What a score says about it."""

    @property
    def threads(self) -> int:
        """How many questions to ask at a time."""

    def check(self, name: str, table: Any) -> None:
        """Raise UserError if there is a row in dataset `name` that it cannot judge."""

    def greet(self) -> None:
        """Raise UserError if it cannot judge anything now."""

    def replier(self, kit: Kit, table: Any, workdir: Path) -> Replier:
        """The object that answers the kit's questions about one table of predictions."""


def choose_judge(name: str, judging: Judging | None, options: DataOptions) -> Judge | None:
    """The judge of a dataset, None where exact matching is enough (it is then used even if a judge is configured).

    Raises:
        UserError: one is needed and none, or only half of one, is configured.
    """
    if judging is None:
        return None
    if options.judge is None:
        raise UserError(
            f"{name} cannot be scored without a judge; give --judge rule (a program, labelled as such in the score), "
            f"give --judge URL and --judge-model NAME of an OpenAI-compatible server, or leave {name} out"
        )
    if options.judge == "rule":
        return RuleJudge(judging)
    if not options.judge.startswith(("http://", "https://")):
        raise UserError(f"judge {options.judge!r} is neither 'rule' nor the URL of an OpenAI-compatible server")
    if not options.judge_model:
        raise UserError(f"judge {options.judge!r} needs the name of a model there: --judge-model NAME")
    return ModelJudge(options.judge, options.judge_model, judging.max_tokens, _key())


def check_judge(name: str, judging: Judging | None, options: DataOptions) -> None:
    """Find out in seconds whether a dataset could be judged: a model answers one tiny request.

    Raises:
        UserError: the judge is not there, does not know the model or refuses the key; or as `choose_judge`.
    """
    judge = choose_judge(name, judging, options)
    if judge is not None:
        judge.greet()


def _key() -> str | None:
    """The key of the server, from where every client of such servers looks for it.

    Raises:
        UserError: it could not be sent; the message of whoever tried would show it.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if key and not _PLAIN.fullmatch(key):
        raise UserError(
            "OPENAI_API_KEY holds blanks, line breaks or other characters that a key cannot have; set it again"
        )
    return key or None


@contextlib.contextmanager
def injected(kit: Kit, dataset: Any, replier: Replier) -> Iterator[None]:
    """Let the kit's `build_judge` hand out `replier`; no wrapper of the kit is built, so none says hello to a server.

    `MIABench.evaluate` also loads its official file anew for the images, so there it is given `dataset`.
    """

    def build_judge(**kwargs: Any) -> Replier:
        return replier

    with (
        replaced(kit.image_vqa, build_judge=build_judge),
        replaced(kit.miabench, build_judge=build_judge, MIABench=lambda name: dataset),
    ):
        yield


@dataclass(frozen=True)
class RuleJudge:
    """Replies by the rules of `rules.py`."""

    judging: Judging
    label: str = "rule"
    threads: int = 1

    def check(self, name: str, table: Any) -> None:
        """Refuse a table with a row that no rule covers."""
        for _, row in table.iterrows():
            refused = self.judging.refuses(row)
            if refused:
                raise UserError(
                    f"{name}: the rule judge has no rule for {refused[0]!r} (row {row['index']}) and does not guess; "
                    "this file needs a judge model: --judge URL --judge-model NAME"
                )

    def greet(self) -> None:
        """Rules are always there."""

    def replier(self, kit: Kit, table: Any, workdir: Path) -> Replier:
        """Replies to every prompt the kit can send about this table, looked up by the prompt's text."""
        prompt = self.judging.prompt(kit)
        rows = (row for _, row in table.iterrows())
        return _Prepared({prompt(row): self.judging.rule(row) for row in rows})


@dataclass(frozen=True)
class _Prepared:
    """Replies known beforehand, by prompt."""

    replies: Mapping[str, str]

    def working(self) -> bool:
        return True

    def generate(self, message: Message, temperature: float = 0.0) -> str:
        text = message if isinstance(message, str) else next(p["value"] for p in message if p["type"] == "text")
        return self.replies[text]


@dataclass(frozen=True)
class ModelJudge:
    """A model behind an OpenAI-compatible server (chat completions).

    Args:
        url: the server's base URL (…/v1), or the full one of its chat completions.
        model: model name sent to it; also the label of the scores.
        key: bearer token. It is sent to that server, and never logged, stored or shown.
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
        """A model can be asked anything."""

    def greet(self) -> None:
        """Ask for one word. A server that is up but slow, say because it loads the model first, gets a minute."""
        replace(self, wait=self.wait / 2, timeout=PATIENCE).ask(
            self.request("Reply with the word ready."),
            "nothing was asked of the model under test yet: start the server, or correct --judge, --judge-model or the "
            "key in OPENAI_API_KEY, and run the same command again",
        )

    def request(self, content: str | list[dict[str, Any]], temperature: float = 0.0) -> dict[str, Any]:
        """The body of a request with one message."""
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": temperature,
            "max_tokens": self.max_tokens,
        }

    def replier(self, kit: Kit, table: Any, workdir: Path) -> Replier:
        """A client whose replies are kept in `workdir/judge-replies.jsonl`, so that a failed scoring can be resumed."""
        return _Client(self, workdir / "judge-replies.jsonl")

    @property
    def endpoint(self) -> str:
        """The address requests are posted to."""
        ending = "/chat/completions"
        return self.url if self.url.endswith(ending) else self.url.rstrip("/") + ending

    def ask(self, request: Mapping[str, Any], remedy: str = KEPT) -> str:
        """Post one request; connection and server errors are retried.

        Raises:
            UserError: no usable reply; `remedy` ends the message.
        """
        post = urllib.request.Request(self.endpoint, json.dumps(request).encode(), {"Content-Type": "application/json"})
        if self.key:  # for this server only, wherever it redirects to
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
class _Client:
    """Asks a model judge, remembers its replies on disk by the full request, and fails at once after a failure."""

    judge: ModelJudge
    log: Path
    _lines: JsonLines[tuple[str, str]] = field(init=False)
    _replies: dict[str, str] = field(init=False)
    _failure: UserError | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._lines = JsonLines(self.log, _stored_reply, "a judge's reply", "delete that line: only it is asked again")
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
            reply = self.judge.ask(request)
        except UserError as error:
            self._failure = error
            raise
        with self._lock:
            self._lines.append([{"request": digest, "reply": reply}])
            self._replies[digest] = reply
        return reply


def _stored_reply(line: dict[str, str]) -> tuple[str, str]:
    """Request hash and reply. Raises ValueError for a line that has none."""
    try:
        return line["request"], line["reply"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{error} is missing") from error


def _content(message: Message) -> str | list[dict[str, Any]]:
    """The kit's message in OpenAI's form; its images are data URLs already."""
    if isinstance(message, str):
        return message
    return [
        {"type": "image_url", "image_url": {"url": part["value"], "detail": "low"}}
        if part["type"] == "image"
        else {"type": "text", "text": part["value"]}
        for part in message
    ]
