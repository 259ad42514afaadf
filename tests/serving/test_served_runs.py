"""`--backend vllm` and `serve-bench` with a real server: answers, pixels, a server that is killed, times."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request as Post
from urllib.request import urlopen

import numpy as np
import pytest
from rich.console import Console

from tests.helpers.serving import RATIO, questions
from tests.helpers.vllm_server import VllmServer, vllm_server
from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.runner import Runner
from uniprune.evaluation.serving.backend import Served, ServedPredictor
from uniprune.evaluation.serving.chat import ChatEncoder
from uniprune.modeling.catalog import find_model
from uniprune.modeling.loading import LoadedModel, Placement, load
from uniprune.modeling.messages import Part

pytest.importorskip("vllm", reason="make serving")
pytestmark = [pytest.mark.serving, pytest.mark.timeout(1800)]

FAMILY = "qwen2.5-vl"
METHOD = MethodSpec("divprune", RATIO)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    with vllm_server(FAMILY, {"method": "divprune", "ratio": RATIO}, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load(find_model(f"tiny-{FAMILY}"), Placement("float32", "sdpa", "cpu"))


def requests(count: int, seed: int = 0) -> list[Request]:
    asked = questions(count, seed)
    parts = [[*(Part(image=image) for image in one.images), Part(text=one.text)] for one in asked]
    return [
        Request(str(i), lambda content=content: content, one.text, max_new_tokens=8)
        for i, (one, content) in enumerate(zip(asked, parts, strict=True))
    ]


def predictor(model: LoadedModel, server: VllmServer, **options: Any) -> ServedPredictor:
    backend = Served((server.address,), timeout=60, **options)
    return ServedPredictor(model, METHOD.pruner(), RunOptions(batch_size=4), backend.servers[0], backend)


def test_a_server_describes_itself_as_runs_do(model: LoadedModel, server: VllmServer) -> None:
    [info] = Served((server.address,)).servers
    assert info.differences(METHOD.record(METHOD.pruner(), model.adapter.attends), model.weights) == []
    assert (info.version, info.dtype, info.device) == ("0.32.0", "float32", "cpu")


def test_answers_tokens_and_first_tokens_are_equal(model: LoadedModel, server: VllmServer) -> None:
    rows = requests(10)
    with Runner(model, METHOD.pruner(), 4) as runner:
        own = {one.index: one for batch in runner.predictions(rows) for one in batch}
    served = {one.index: one for batch in predictor(model, server).predictions(rows) for one in batch}
    assert served.keys() == own.keys()
    for index, one in own.items():
        other = served[index]
        assert one.first is not None
        assert other.first is not None
        assert (other.prediction, other.visual_tokens, other.text_tokens, other.new_tokens, other.initial) == (
            *(one.prediction, one.visual_tokens, one.text_tokens, one.new_tokens, one.initial),
        )
        assert other.first.ids[0] == one.first.ids[0]
        assert other.first.logs[0] == pytest.approx(one.first.logs[0], abs=1e-3)


def test_a_prompt_beyond_the_context_is_a_row_with_the_servers_reason(model: LoadedModel, server: VllmServer) -> None:
    fine, long = requests(2)
    text = " ".join(["red circle"] * 400)
    long = Request(long.index, lambda: [*fine.load()[:1], Part(text=text)], text, max_new_tokens=8)
    found = {one.index: one for batch in predictor(model, server).predictions([fine, long]) for one in batch}
    assert found[fine.index].error is None
    assert str(found[long.index].error).startswith("the server refuses it: ")
    assert "512" in str(found[long.index].error)


def test_the_same_pixels_reach_the_engine(model: LoadedModel, server: VllmServer) -> None:
    """The processor's output is the same on the server, which leaves its last step to the engine's device."""
    from vllm.entrypoints.scale_out.token_in_token_out.mm_serde import decode_mm_kwargs_item

    for row, request in zip(map(ChatEncoder(model.processor).encode, requests(4)), requests(4), strict=True):
        assert row.chat is not None
        body = json.dumps({**row.chat, "model": "tiny"}).encode()
        post = Post(f"{server.address}/v1/chat/completions/render", body, {"Content-Type": "application/json"})
        with urlopen(post, timeout=60) as reply:
            [item] = json.load(reply)["features"]["kwargs_data"]["image"]
        [image] = [part.image for part in request.load() if part.image is not None]
        processor = model.processor.image_processor
        own = processor(images=[image], return_tensors="np")["pixel_values"]
        found = decode_mm_kwargs_item(item)["pixel_values"].data.float().numpy()
        mean, deviation = (np.array(values)[:, None] for values in (processor.image_mean, processor.image_std))
        levels = (own.reshape(len(own), 3, -1) * deviation + mean) * 255  # not rescaled and normalised
        assert found.shape == own.shape
        assert np.array_equal(found.reshape(levels.shape), np.rint(levels))
        assert np.abs(levels - np.rint(levels)).max() < 1e-3


def test_load_shows_where_the_time_goes(server: VllmServer, tmp_path: Path) -> None:
    from uniprune.latency.serving.bench import ServeBench
    from uniprune.latency.serving.options import LoadOptions
    from uniprune.latency.serving.rows import ServeFile
    from uniprune.utils.console import RunProgress

    options = LoadOptions(concurrency=(1, 4), requests=4, rounds=1, warmup=1, side=96, words=6, new_tokens=3)
    progress = RunProgress(1, Console(quiet=True))
    servers = Served((server.address,)).servers
    for row in ServeBench(servers, options, ServeFile(tmp_path / "rows.jsonl"), progress, 60).run():
        measured = row.measured
        assert measured.spent["images"] == measured.spent["requests"] == 4
        assert (measured.spans["tower"] > 0, measured.spans["selection"] > 0) == (True, True)
        assert sum(measured.spans.values()) < sum(measured.seconds)
        assert min(measured.ttft) > 0
        assert measured.each("prefill") is not None


def test_a_killed_server_loses_no_answer(model: LoadedModel, server: VllmServer) -> None:
    """Last: the server is another process afterwards."""
    rows = requests(8, seed=5)
    whole = {one.index: one for batch in predictor(model, server).predictions(rows) for one in batch}
    before = {}
    answers = predictor(model, server, retries=1).predictions(rows)
    for batch in answers:
        before.update({one.index: one for one in batch})
        server.kill()
        break
    with pytest.raises(UserError, match=r"cannot be reached|cannot be read"):
        for batch in answers:
            before.update({one.index: one for one in batch})
    assert 0 < len(before) < 8
    server.start()
    left = [row for row in rows if row.index not in before]
    after = {one.index: one for batch in predictor(model, server).predictions(left) for one in batch}
    assert {index: one.prediction for index, one in {**before, **after}.items()} == {
        index: one.prediction for index, one in whole.items()
    }
