"""Self-description of a server: engine, checkpoint, method and positions, as the plug-in `uniprune-vllm` publishes it.

An answer of a method must not be stored under the name of another. So a run reads what a server serves, and a server
that does not describe itself is refused.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from uniprune.errors import UserError
from uniprune.evaluation.serving.client import Client, RefusedError
from uniprune.results.records import MethodRecord

INFO = "uniprune_served_info"
"""The metric whose labels describe a server."""
ENGINE = "vllm"
"""The engine that can be started with the plug-in."""
_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED = {r"\n": "\n", r"\"": '"', r"\\": "\\"}
FIELDS = ("method", "resolved", "code", "weights", "dtype", "device", "machine", "version")
"""Labels of `INFO`."""


@dataclass(frozen=True)
class ServerInfo:
    """Description of what a server serves.

    Attributes:
        address: of the server.
        model: name of the model in requests.
        method: registered name of the method, "none" for the un-pruned model.
        resolved: every field of the method.
        code: hash of the method's source files.
        weights: hub commit, or hash of the folder's files.
        dtype: precision, e.g. "float32".
        device: "cpu" or "cuda".
        machine: name of the accelerator or processor.
        version: of the engine.
    """

    address: str
    model: str
    method: str
    resolved: dict[str, Any]
    code: str
    weights: str
    dtype: str
    device: str
    machine: str
    version: str

    @property
    def label(self) -> str:
        """Method, ratio and positions, for tables and messages."""
        if self.method == "none":
            return self.method
        return f"{self.method} {self.resolved['ratio']:g} positions={self.resolved['positions']}"

    def differences(self, method: MethodRecord, weights: str) -> list[str]:
        """Return in what a run of a method needs another server than this one; nothing if it serves the run."""
        [wanted] = method.resolved if len(method.resolved) == 1 else [{}]
        found = [f"weights {self.weights}, not {weights}"] * (self.weights != weights)
        if self.method != method.name:
            return [*found, f"method {self.method}, not {method.name}"]
        names = sorted(wanted.keys() | self.resolved.keys()) if method.kind != "none" else []
        for name in names:
            if (have := self.resolved.get(name)) != (want := wanted.get(name)):
                found.append(f"{name} {have}, not {want}")
        return [*found, *["another release of the method's code"] * (self.code != method.code)]


def read_info(address: str, timeout: float) -> ServerInfo:
    """Ask a server what it serves.

    Raises:
        UserError: it does not answer, does not say, or serves several models.
    """
    return asyncio.run(_read(address, timeout))


async def _read(address: str, timeout: float) -> ServerInfo:
    client = Client.open(address, timeout, retries=1)
    try:
        models = json.loads(await client.get("/v1/models"))["data"]
        found = [labels for name, labels, _ in samples(await client.get("/metrics")) if name == INFO]
    except RefusedError as error:
        raise UserError(f"the server at {address} does not describe itself: {error}; expected one of vLLM") from error
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"the server at {address} is not OpenAI-compatible: /v1/models or /metrics is in another form "
            f"({type(error).__name__}: {error})"
        ) from error
    finally:
        await client.close()
    complete = [labels for labels in found if set(FIELDS) <= labels.keys()]
    if not complete:
        raise UserError(
            f"the server at {address} does not say which method it serves; start vLLM with the plug-in uniprune-vllm "
            "(integrations/vllm) and one of its architectures, for the un-pruned model with method none"
        )
    labels = complete[0]
    if any(other[name] != labels[name] for other in complete for name in FIELDS):
        raise UserError(
            f"the server at {address} says that it serves several methods: its metrics hold those of another server; "
            "start it with PROMETHEUS_MULTIPROC_DIR set to an empty folder of its own"
        )
    if len(models) != 1:
        raise UserError(f"the server at {address} serves {len(models)} models; expected one, without LoRA adapters")
    [model] = models
    fields = {name: labels[name] for name in FIELDS}
    return ServerInfo(
        address=address,
        model=str(model["id"]),
        **{**fields, "resolved": json.loads(labels["resolved"])},
    )


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield name, labels and value of every sample in a text of Prometheus metrics."""
    for name, labels, value in _SAMPLE.findall(text):
        yield name, {key: _unescaped(text) for key, text in _LABEL.findall(labels or "")}, float(value)


def totals(text: str) -> Mapping[str, float]:
    """Return name -> sum over all labels of every sample in a text of Prometheus metrics."""
    found: dict[str, float] = {}
    for name, _, value in samples(text):
        found[name] = found.get(name, 0.0) + value
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\.", lambda found: _ESCAPED.get(found[0], found[0]), text)
