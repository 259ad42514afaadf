"""A small HTTP server with the OpenAI interface, as vLLM extends it, that answers with a tiny model of transformers.

It knows nothing of the client under test: it applies the checkpoint's chat template and processor to the messages it
gets, prunes after the projector, and decodes greedily.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from threading import Lock, Thread
from typing import Any

import torch
from PIL import Image

from uniprune.engine import prune
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.modeling.loading import LoadedModel
from uniprune.pruning.budget import keep_count

Reply = tuple[int, dict[str, Any]]
Trouble = Callable[[int, dict[str, Any]], Reply | None]
"""From the number of a chat request and its body to a reply in place of the model's; may raise or wait."""


class Broken(Exception):
    """Raised by a `Trouble` to break the connection."""


@dataclass
class ServedTiny:
    """The server's state.

    Attributes:
        loaded: the model.
        method: what it prunes with.
        trouble: see `Trouble`.
        labels: labels of the metric that differ from the truth.
        bodies: chat requests so far.
    """

    loaded: LoadedModel
    method: MethodSpec
    trouble: Trouble = lambda number, body: None
    labels: dict[str, str] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self._lock = Lock()
        self.record = self.method.record(self.method.pruner(), self.loaded.adapter.attends)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def metrics(self) -> str:
        [resolved] = self.record.resolved
        labels = {
            "method": self.record.name,
            "resolved": json.dumps(resolved),
            "code": self.record.code,
            "weights": self.loaded.weights,
            "dtype": "float32",
            "device": "cpu",
            "machine": "a CPU",
            "version": "0.32.0",
            **self.labels,
        }
        text = ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items())
        count = len(self.bodies)
        name = "vllm:request_queue_time_seconds"
        asked = f"{name}_sum {count / 4}\n{name}_count {count}"
        return f"# HELP x y\nuniprune_served_info{{{text}}} 1.0\n{asked}\n"

    def answer(self, body: dict[str, Any]) -> Reply:
        with self._lock:
            self.bodies.append(body)
            number = len(self.bodies)
        found = self.trouble(number, body)
        if found is not None:
            return found
        with self._lock:
            return 200, self._generated(body)

    @torch.inference_mode()
    def _generated(self, body: dict[str, Any]) -> dict[str, Any]:
        images, messages = [], []
        for message in body["messages"]:
            parts = []
            for part in message["content"]:
                if part["type"] == "image_url":
                    data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
                    images.append(Image.open(io.BytesIO(data)))
                    parts.append({"type": "image"})
                else:
                    parts.append(part)
            messages.append({"role": message["role"], "content": parts})
        processor, model = self.loaded.processor, self.loaded.model
        prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        special = body.get("add_special_tokens", False)
        inputs = processor(text=prompt, images=[images] if images else None, add_special_tokens=special,
                           return_tensors="pt")  # fmt: skip
        with prune(model, self.method.pruner()):
            output = model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=body["max_tokens"],
                eos_token_id=None if body.get("ignore_eos") else body.get("stop_token_ids"),
                output_logits=True,
                return_dict_in_generate=True,
            )
        own = inputs["input_ids"][0].tolist()
        ids = output.sequences[0, len(own) :].tolist()
        logs, tokens = output.logits[0][0].log_softmax(-1).topk(body.get("top_logprobs") or 1)
        top = [{"token": f"token_id:{t}", "logprob": p} for t, p in zip(tokens.tolist(), logs.tolist(), strict=True)]
        ended = ids[-1] in body.get("stop_token_ids", [])
        choice = {
            "index": 0,
            "token_ids": ids,
            "finish_reason": "stop" if ended else "length",
            "logprobs": {"content": [{**top[0], "top_logprobs": top}]},
        }
        shorter = list(self._shorter(own))
        return {
            "choices": [choice],
            "prompt_token_ids": shorter,
            "usage": {"prompt_tokens": len(shorter), "completion_tokens": len(ids)},
        }

    def _shorter(self, own: list[int]) -> Iterator[int]:
        for token, run in groupby(own):
            count, visual = len(list(run)), token in self.loaded.adapter.visual_token_ids
            yield from [token] * (keep_count(count, self.method.pruner().ratio) if visual else count)


def escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class _Server(ThreadingHTTPServer):
    def handle_error(self, *words: Any) -> None:
        """Print nothing: clients hang up in the middle of a reply."""


@contextmanager
def serving(state: ServedTiny) -> Iterator[ServedTiny]:
    """Serve on a free port of this machine, or on the one of before."""
    server = _Server(("127.0.0.1", state.port), _handler(state))
    state.port = server.server_port
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(state: ServedTiny) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            texts = {
                "/v1/models": json.dumps({"data": [{"id": "tiny", "max_model_len": 512}]}),
                "/metrics": state.metrics(),
            }
            found = texts.get(self.path)
            self._send(404 if found is None else 200, found or json.dumps({"error": {"message": "no such path"}}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                status, reply = state.answer(body)
            except Broken:
                self.close_connection = True
                return
            if status == 200 and body.get("stream"):
                self._stream(reply)
            else:
                self._send(status, json.dumps(reply))

        def _stream(self, reply: dict[str, Any]) -> None:
            pieces = [
                {"choices": [{"index": 0, "delta": {"content": "x"}, "token_ids": [token]}]}
                for token in reply["choices"][0]["token_ids"]
            ]
            text = "".join(
                f"data: {json.dumps(one)}\n\n" for one in [*pieces, {"choices": [], "usage": reply["usage"]}]
            )
            self._send(200, text + "data: [DONE]\n\n", "text/event-stream")

        def _send(self, status: int, text: str, kind: str = "application/json") -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: Any) -> None:
            pass

    return Handler
