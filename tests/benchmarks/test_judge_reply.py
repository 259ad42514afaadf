"""A judge's reply counts only if its server gave it to the question: no redirect, page, copy, cut or foreign reply."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from uniprune.benchmarks._kit.judge_reply import BadReplyError, same_model, verdict
from uniprune.benchmarks._kit.model_judge import ModelJudge
from uniprune.errors import UserError

SECRET = "sk-very-secret-0123456789"


def completion(content: Any = "B", **fields: Any) -> bytes:
    choice = {"message": {"content": content}, "finish_reason": fields.pop("finish", "stop")}
    return json.dumps({"choices": [choice]} | fields).encode()


@pytest.mark.parametrize(
    ("requested", "replied", "same"),
    [
        ("m", "m", True), ("owner/m", "m", True), ("m", "owner/M", True), ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4", "gpt-4-0613", True), ("gpt-4o-latest", "gpt-4o-20240806", True), ("gpt-4o", "gpt-4o-mini", False),
        ("m", "n", False), ("m-7b", "m-72b", False), ("gpt-4o-2024-08-06", "gpt-4o", False),
    ],
)  # fmt: skip
def test_names_of_models(requested: str, replied: str, same: bool) -> None:
    assert same_model(requested, replied) is same


def test_a_completion_is_read() -> None:
    assert verdict(completion("the letter\tB\n"), "m") == "the letter\tB\n"
    assert verdict(completion(model="m"), "m") == "B"
    assert verdict(b'{"choices": [{"message": {"content": "B"}}]}', "m") == "B"


@pytest.mark.parametrize(
    ("body", "reason", "final"),
    [
        (b"<html>\x1b[31msign in", "no chat completion .*'<html> \\[31msign in'", False),
        (b'{"a": 1}', "no chat completion .*KeyError: 'choices'", False),
        (b'{"choices": []}', "no chat completion .*IndexError", False),
        (b"[1]", "no chat completion .*TypeError", False),
        (b"[" * 200_000, "no chat completion .*nested too deeply", False),
        (b'{"choices": [{"message": {"content": NaN}}]}', "no chat completion .*content is nan", False),
        (completion().replace(b"B", b"\xff"), "no chat completion .*UnicodeDecodeError", False),
        (completion(None), "the reply is of type NoneType instead of a text", False),
        (completion([{"type": "text", "text": "B"}]), "the reply is of type list instead of a text", False),
        (completion(" \n"), "the reply is empty", False),
        (completion("\ud800 B"), r"the reply is no text: it holds the character '\\ud800'", False),
        (completion("B\x00"), r"holds the character '\\x00'", False),
        (completion(finish="length"), "ended by 'length', so it was cut at the token limit", True),
        (completion(finish="content_filter"), "ended by 'content_filter'", True),
        (completion(model="other"), "is of model 'other'; if that is the judge, give its name as --judge-model", True),
    ],
)
def test_what_is_no_verdict(body: bytes, reason: str, final: bool) -> None:
    with pytest.raises(BadReplyError, match=reason) as caught:
        verdict(body, "m")
    assert caught.value.final is final


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1  # type: ignore[attr-defined]
        self.wfile.write(self.server.raw)  # type: ignore[attr-defined]

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    instance = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    instance.asked, instance.raw = 0, b""  # type: ignore[attr-defined]
    threading.Thread(target=instance.serve_forever, daemon=True).start()
    yield instance
    instance.shutdown()
    instance.server_close()


def raw(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return "\r\n".join([f"HTTP/1.0 {status}", f"Content-Length: {size}", *headers, "", ""]).encode() + body


@pytest.mark.parametrize(
    ("reply", "reason", "asked"),
    [
        (raw(completion(), "Age: 86400"), "a cache's copy, 86400 seconds old", 2),
        (raw(b"", status="204 No Content"), "HTTP 204 instead of 200", 2),
        (raw(completion(), length=1000), "the connection was cut, .* bytes before the end", 2),
        (b"NONSENSE\r\n\r\n", "BadStatusLine", 2),
        (b"", "RemoteDisconnected", 2),
        (raw(b"slow down", status="429 Too Many Requests"), "HTTP 429: slow down", 2),
        (raw(b"\x1b[31m no", status="400 Bad Request"), "HTTP 400:  \\[31m no", 1),
        (raw(b"x" * 380 + SECRET.encode(), status="400 Bad Request"), r"HTTP 400: x+\*", 1),
        (raw(b" " * 2**23), "more than 4194304 bytes", 1),
        (raw(completion(finish="length")), "cut at the token limit", 1),
        (raw(b"", "Location: http://127.0.0.1:9/x", status="302 Found"), "redirects to http://127.0.0.1:9/x", 1),
    ],
)
def test_nothing_of_a_bad_reply_is_kept(reply: bytes, reason: str, asked: int, server: Any, tmp_path: Path) -> None:
    server.raw = reply
    judge = ModelJudge(f"http://127.0.0.1:{server.server_port}/v1", "m", 128, SECRET, retries=2, wait=0.0)
    replier = judge.replier(None, None, tmp_path)  # type: ignore[arg-type]  # a model judge reads neither
    with pytest.raises(UserError, match=f"the judge 'm' at .* gave no answer .*{reason}") as caught:
        replier.generate("which letter?")
    assert (server.asked, "sk-" in str(caught.value), "\x1b" in str(caught.value)) == (asked, False, False)
    assert not (tmp_path / "judge-replies.jsonl").exists()
    server.raw = raw(completion())
    again = judge.replier(None, None, tmp_path)  # type: ignore[arg-type]  # as above
    assert again.generate("which letter?") == "B", "a healthy judge is asked again"


def test_a_server_that_drips_is_given_up(server: Any) -> None:
    server.raw = raw(b"{", length=100)
    judge = ModelJudge(f"http://127.0.0.1:{server.server_port}/v1", "m", 128, retries=1, timeout=0.2)
    with pytest.raises(UserError, match=r"the connection was cut|not complete after 0\.2 seconds|timed out"):
        judge.send(judge.request("?"))


def test_a_stored_reply_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "judge-replies.jsonl"
    file.write_text('{"request": "0", "reply": "B"}\n{"request": "1", "reply": "\\ud800 B"}\n')
    judge = ModelJudge("http://127.0.0.1:9/v1", "m", 128)
    with pytest.raises(UserError, match=r"judge-replies.jsonl line 2 is not a judge's reply .*; delete that line"):
        judge.replier(None, None, tmp_path)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:abc/v1", "http://exa mple/v1", "http://[::1", "http://", "http://user:pw@host/v1"]
)
def test_an_address_that_is_none_is_refused_in_one_line(url: str) -> None:
    judge = ModelJudge(url, "m", 128)
    with pytest.raises(UserError, match="is not the address of a server") as caught:
        judge.send(judge.request("?"))
    assert "pw" not in str(caught.value)
