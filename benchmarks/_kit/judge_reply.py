"""Exchange with a judge's server: a reply counts only if that server gave it to the request that was posted."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from typing import Any

from uniprune.utils.json_text import from_json

LARGEST = 2**22
"""Most bytes of a server's reply."""
CHUNK = 2**16
SHOWN = 400
"""Most characters of a server's own message in ours."""
FINISHED = (None, "stop", "eos_token", "stop_sequence")
"""Values of `finish_reason` of a whole reply."""

_UNREADABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_VERSION = re.compile(r"[-@:](\d{4}|\d{8}|\d{4}-\d\d-\d\d)")
"""Ending by which servers name the version that an alias stands for: "-0613", "-20240806", "-2024-08-06"."""


class BadReplyError(Exception):
    """A reply that is no verdict on the request.

    Attributes:
        final: whether the same request would get it again.
    """

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Handler that follows no redirect: another address would get a request without the question."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        raise BadReplyError(
            f"HTTP {code}: it redirects to {newurl}, which would not get the question; if that address is right, give "
            "it as --judge",
            final=True,
        )


def post(request: urllib.request.Request, model: str, timeout: float) -> str:
    """Post a request for a chat completion and return the text of the reply.

    Args:
        request: the request, whose body is JSON.
        model: the model requested.
        timeout: seconds for all of it.

    Raises:
        BadReplyError: no reply, or none that is a verdict of that model on this request.
    """
    local = urllib.parse.urlsplit(request.full_url).hostname in ("localhost", "127.0.0.1", "::1")
    # A proxy of the shell cannot reach a server on this very machine.
    handlers = [_NoRedirects(), *([urllib.request.ProxyHandler({})] if local else [])]
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as reply:
            if reply.status != 200:
                raise BadReplyError(f"HTTP {reply.status} instead of 200")
            if reply.headers.get("Age", "0") != "0":
                raise BadReplyError(f"a cache's copy, {reply.headers['Age']} seconds old, instead of a reply")
            return verdict(_body(reply, timeout), model)
    except urllib.error.HTTPError as error:
        raise BadReplyError(
            f"HTTP {error.code}: {_message(error, timeout)}", final=error.code < 500 and error.code != 429
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        raise BadReplyError(f"{type(error).__name__}: {error}") from error


def verdict(body: bytes, model: str) -> str:
    """Return the text of a chat completion.

    Raises:
        BadReplyError: it is no completion of that model, is cut at the token limit, or has no usable text.
    """
    try:
        completion = from_json(body)
        choice = completion["choices"][0]
        text, finish = choice["message"]["content"], choice.get("finish_reason")
        name = completion.get("model") or model
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        begin = printable(body.decode(errors="replace"))[:60]
        raise BadReplyError(f"no chat completion ({type(error).__name__}: {error}): {begin!r}") from error
    if not same_model(model, str(name)):
        raise BadReplyError(
            f"the reply is of model {name!r}; if that is the judge, give its name as --judge-model", final=True
        )
    if finish not in FINISHED:
        meaning = {"length": ", so it was cut at the token limit; use a judge that replies more briefly"}
        raise BadReplyError(f"the reply ended by {finish!r}{meaning.get(finish, '')}", final=True)
    if problem := unusable(text):
        raise BadReplyError(f"the reply is {problem}")
    return str(text)


def unusable(text: Any) -> str:
    """Return the reason why a value is no verdict; empty if it may be one."""
    if not isinstance(text, str):
        return f"of type {type(text).__name__} instead of a text"
    if not text.strip():
        return "empty"
    bad = _UNREADABLE.search(text)
    return f"no text: it holds the character {bad[0]!r}" if bad else ""


def same_model(requested: str, name: str) -> bool:
    """Check whether a server's name of the replying model is the requested one, without owner, or a version of it."""
    wanted, got = (text.rsplit("/", 1)[-1].casefold() for text in (requested, name))
    alias = wanted.removesuffix("-latest")
    return got == wanted or (got.startswith(alias) and _VERSION.fullmatch(got[len(alias) :]) is not None)


def printable(text: str) -> str:
    """Return a server's text for a message: control characters become blanks."""
    return _CONTROL.sub(" ", text).strip()


def _message(error: urllib.error.HTTPError, timeout: float) -> str:
    """Read the text of an error, all of it: a key in it must be found whole to be hidden."""
    try:
        return _body(error.fp, timeout).decode(errors="replace")
    except (OSError, HTTPException, ValueError, BadReplyError):
        return error.reason


def _body(reply: Any, timeout: float) -> bytes:
    """Read a reply.

    Raises:
        BadReplyError: it is larger than `LARGEST`, is cut short, or takes longer than `timeout` seconds.
    """
    until, content = time.monotonic() + timeout, b""
    while chunk := reply.read1(CHUNK):
        content += chunk
        if len(content) > LARGEST:
            raise BadReplyError(f"the reply has more than {LARGEST} bytes", final=True)
        if time.monotonic() > until:
            raise BadReplyError(f"the reply was not complete after {timeout:g} seconds")
    if reply.length:
        raise BadReplyError(f"the connection was cut, {reply.length} bytes before the end of the reply")
    return content
