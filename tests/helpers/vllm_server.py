"""A server of vLLM with the plug-in, as a process of its own that can be killed and started again."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from tests.helpers.paths import ROOT
from tests.helpers.serving import ARCHITECTURES, OFFLINE

PATIENCE = 900
"""Seconds until a server must be ready."""


@dataclass
class VllmServer:
    """One server.

    Attributes:
        family: folder of the tiny model.
        served: the key "uniprune" of its configuration.
        folder: of its log and metrics.
        port: the same after a restart.
    """

    family: str
    served: dict[str, Any]
    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        metrics = self.folder / f"metrics-{time.time_ns()}"
        metrics.mkdir()
        environment = {**os.environ, **OFFLINE, "PROMETHEUS_MULTIPROC_DIR": str(metrics), "OMP_NUM_THREADS": "1"}
        environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING")
        overrides = {"architectures": [ARCHITECTURES[self.family]], "uniprune": self.served}
        words = [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--served-model-name", "tiny"),
            *("--model", str(ROOT / "models/tiny" / self.family), "--host", "127.0.0.1", "--port", str(self.port)),
            *("--enforce-eager", "--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "8"),
            *("--distributed-executor-backend", "uni", "--enable-scale-out", "--hf-overrides", json.dumps(overrides)),
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + PATIENCE
        while not self._healthy():
            ended = self.process.poll() is not None
            assert not ended and time.monotonic() < end, (self.folder / "log").read_text(errors="replace")[-2000:]
            time.sleep(0.5)

    def kill(self) -> None:
        """Kill its processes without a warning."""
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None

    def _healthy(self) -> bool:
        try:
            with urlopen(f"{self.address}/health", timeout=5) as reply:
                return bool(reply.status == 200)
        except (URLError, OSError):
            return False


@contextmanager
def vllm_server(family: str, served: dict[str, Any], folder: Path) -> Iterator[VllmServer]:
    """Start a server; kill it at the end."""
    server = VllmServer(family, served, folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
