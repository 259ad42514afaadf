"""vLLM's OpenAI server with the plug-in: requests over HTTP, a server killed between them, and refused starts."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.paths import ROOT
from tests.helpers.serving import ANSWER, OFFLINE, Asked, arguments, method, questions

pytest.importorskip("vllm", reason="make serving")
pytestmark = [pytest.mark.serving, pytest.mark.timeout(1200)]

FLAGS = {"enforce_eager", "disable_log_stats"}
CDPRUNER = {"method": "cdpruner", "ratio": 1 / 9, "positions": "original"}


def command(family: str, given: Mapping[str, Any] | None, port: int, **options: Any) -> list[str]:
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    words.append("--trust-request-mm-kwargs")
    for name, value in {**arguments(family, given, options), "served_model_name": "tiny"}.items():
        option = "--" + name.replace("_", "-")
        if name in FLAGS:
            words += [option] * bool(value)
        else:
            words += [option, json.dumps(value) if isinstance(value, dict) else str(value)]
    return words


def environment() -> dict[str, str]:
    return {**os.environ, **OFFLINE, "PYTHONPATH": str(ROOT)}


@contextmanager
def server(given: Mapping[str, Any], log: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run a server of the tiny LLaVA; its group of processes ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command("llava", given, port), env=environment(), stdout=file, stderr=file, start_new_session=True
        )
        try:
            while True:
                assert process.poll() is None, log.read_text(errors="replace")[-3000:]
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                except OSError:
                    time.sleep(1)
            yield port, process
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def image_part(image: Image.Image) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def answer(port: int, asked: Asked, question: str | None) -> str:
    body: dict[str, Any] = {
        "model": "tiny",
        "temperature": 0,
        "max_tokens": ANSWER,
        "messages": [{"role": "user", "content": asked.content(image_part)}],
    }
    if question is not None:
        body["mm_processor_kwargs"] = {"uniprune_question": question}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            text: str = json.load(response)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        raise ValueError(f"{error.code}: {error.read().decode()}") from error
    return text.strip()


def test_a_server_that_is_killed_and_started_again_goes_on(tmp_path: Path, reference) -> None:
    asked = questions(6, seed=9)
    found = []
    for number, part in enumerate((asked[:3], asked[3:])):
        with server(CDPRUNER, tmp_path / f"{number}.log") as (port, _):
            found += [answer(port, one, one.text) for one in part]
            with pytest.raises(ValueError, match=r"400: .*CDPruner reads the question"):
                answer(port, part[0], None)  # and the server goes on
            assert answer(port, part[0], part[0].text) == found[-3]
        with pytest.raises(OSError, match="refused"):
            answer(port, part[0], part[0].text)
    expected = reference("llava").answer(method("cdpruner", positions="original"), asked)
    assert found == [one.text for one in expected]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"method": "fastv", "ratio": 0.111},
            "uniprune.errors.UnsupportedError: method 'fastv' cannot be served: it prunes before decoder layer 2, but "
            "all layers of a serving engine share one sequence",
        ),
        ({"method": "divprune", "ratio": 0.0}, "uniprune.errors.UserError: keep ratio 0.0 is outside (0, 1]"),
    ],
)
def test_a_start_that_cannot_succeed_ends_with_one_line(given: Mapping[str, Any], line: str) -> None:
    done = subprocess.run(
        command("llava", given, 1), env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode
    assert done.stderr.strip().splitlines()[-1].startswith(line)


def test_a_checkpoint_without_image_processor_is_refused(tmp_path: Path) -> None:
    for file in (ROOT / "models/tiny/llava").iterdir():
        if file.name != "processor_config.json":
            (tmp_path / file.name).symlink_to(file)
    words = command("llava", {"method": "none"}, 1)
    words[words.index("--model") + 1] = str(tmp_path)
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode
    assert f"model folder {tmp_path} has no image processor" in done.stderr.strip().splitlines()[-1]
