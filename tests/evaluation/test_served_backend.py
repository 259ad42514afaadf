"""`--backend vllm`: rows sent to a server over HTTP, which answers with the same tiny model as the usual backend."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.helpers.served_tiny import Broken, Reply, ServedTiny, Trouble, serving
from uniprune.errors import UserError
from uniprune.evaluation.backend import IN_PROCESS, Backend
from uniprune.evaluation.dataset import Dataset
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.run import Run
from uniprune.evaluation.serving.backend import Served
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.loading import LoadedModel, Placement, load, outline
from uniprune.results.predictions import Prediction, prediction_lines
from uniprune.results.records import RunRecord
from uniprune.results.store import Store
from uniprune.utils.console import RunProgress

pytestmark = pytest.mark.end_to_end

CPU = Placement("float32", "sdpa", "cpu")
DIVPRUNE = MethodSpec("divprune", 0.25)


def evaluate(
    model: LoadedModel, method: MethodSpec, output: Path, dataset: Dataset, backend: Backend = IN_PROCESS
) -> tuple[RunRecord, dict[str, Prediction]]:
    run = Run(model, method, RunOptions(limit=6, batch_size=3), backend)
    record = run.evaluate([dataset], Store(output), RunProgress(6, Console(quiet=True)))
    return record, stored(output, record)


def stored(output: Path, record: RunRecord) -> dict[str, Prediction]:
    return {one.index: one for one in prediction_lines(output / record.identity / "small.jsonl").read()}


def served(model: LoadedModel, *addresses: str) -> tuple[LoadedModel, Served]:
    """Return the backend, and the model as it needs it: without weights."""
    backend = Served(addresses, timeout=20, retries=1)
    return backend.load(outline(model.entry, CPU)), backend


@pytest.fixture(scope="module", params=["llava", "qwen2.5-vl"])
def model(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> LoadedModel:
    return load(ModelEntry(name="tiny", source=str(checkpoint(request.param))), CPU)


@pytest.mark.parametrize("method", [MethodSpec("none"), DIVPRUNE], ids=["none", "divprune"])
def test_answers_scores_and_tokens_are_those_of_the_usual_backend(
    model: LoadedModel, small: Dataset, method: MethodSpec, tmp_path: Path
) -> None:
    own, expected = evaluate(model, method, tmp_path, small)
    with serving(ServedTiny(model, method)) as server:
        bare, backend = served(model, server.address)
        record, found = evaluate(bare, method, tmp_path, small, backend)
    assert record.identity != own.identity
    assert record.setup.model_dump(exclude={"serving", "attention"}) == own.setup.model_dump(
        exclude={"serving", "attention"}
    )
    assert (record.setup.serving.engine, record.setup.serving.version) == ("vllm", "0.32.0")  # type: ignore[union-attr]
    ours, theirs = record.datasets["small"], own.datasets["small"]
    assert (ours.score.value, ours.data, ours.prompts) == (theirs.score.value, theirs.data, theirs.prompts)  # type: ignore[union-attr]
    assert (ours.timing, ours.batching) == (None, {"3 in flight": 6})
    assert ours.environments[0].versions["vllm"] == "0.32.0"
    for index, one in expected.items():
        other = found[index]
        same = {"prediction", "new_tokens", "visual_tokens", "initial", "text_tokens", "requested", "remarks"}
        assert other.model_dump(include=same) == one.model_dump(include=same)
        assert other.first.ids[:3] == one.first.ids[:3]  # type: ignore[union-attr]
        assert other.first.logs == pytest.approx(one.first.logs, abs=2e-4)  # type: ignore[union-attr]
        assert other.first.rest == pytest.approx(one.first.rest, abs=1e-3)  # type: ignore[union-attr]


def test_a_request_is_greedy_whatever_the_checkpoint_ships(model: LoadedModel, small: Dataset, tmp_path: Path) -> None:
    with serving(ServedTiny(model, MethodSpec("none"))) as server:
        bare, backend = served(model, server.address)
        evaluate(bare, MethodSpec("none"), tmp_path, small, backend)
    trial, *rows = server.bodies
    assert trial["messages"][0]["content"] == [{"type": "text", "text": "?"}]
    assert len(rows) == 6
    neutral = {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1, "min_tokens": 0}
    for body in rows:
        assert {name: body[name] for name in neutral} == neutral
        assert (body["presence_penalty"], body["frequency_penalty"], body["max_tokens"]) == (0, 0, 4)
        assert body["stop_token_ids"] == [model.processor.tokenizer.eos_token_id]


def other_method(server: ServedTiny) -> None:
    server.labels = {"method": "gprune"}


def other_ratio(server: ServedTiny) -> None:
    server.labels = {"resolved": json.dumps({**server.record.resolved[0], "ratio": 0.5})}


def other_positions(server: ServedTiny) -> None:
    server.labels = {"resolved": json.dumps({**server.record.resolved[0], "positions": "compact"})}


def other_weights(server: ServedTiny) -> None:
    server.labels = {"weights": "abc"}


def other_code(server: ServedTiny) -> None:
    server.labels = {"code": "abc"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_method, "has method gprune, not divprune"),
        (other_ratio, "has ratio 0.5, not 0.25"),
        (other_positions, "has positions compact, not original"),
        (other_weights, "has weights abc, not "),
        (other_code, "has another release of the method's code"),
    ],
)
def test_a_server_of_something_else_is_refused_before_a_row_is_sent(
    loaded: LoadedModel, change: Callable[[ServedTiny], None], reason: str
) -> None:
    server = ServedTiny(loaded, DIVPRUNE)
    change(server)
    with serving(server):
        bare, backend = served(loaded, server.address)
        with pytest.raises(UserError, match=f"no server serves divprune: .*{reason}.*--hf-overrides"):
            Run(bare, DIVPRUNE, RunOptions(), backend)
    assert server.bodies == []


def test_of_several_servers_the_one_with_the_method_answers(
    loaded: LoadedModel, small: Dataset, tmp_path: Path
) -> None:
    with serving(ServedTiny(loaded, MethodSpec("none"))) as first, serving(ServedTiny(loaded, DIVPRUNE)) as second:
        bare, backend = served(loaded, first.address + "/v1/", second.address)
        evaluate(bare, DIVPRUNE, tmp_path, small, backend)
    assert (len(first.bodies), len(second.bodies)) == (0, 7)


def test_a_server_that_does_not_describe_itself_is_refused(loaded: LoadedModel) -> None:
    with serving(ServedTiny(loaded, DIVPRUNE, labels={"method": 'a"b'})) as server:
        assert Served((server.address,)).servers[0].method == 'a"b'
        server.metrics = lambda: "vllm:num_requests 1.0\n"  # type: ignore[method-assign]
        with pytest.raises(UserError, match="does not say which method it serves; start vLLM with the plug-in"):
            _ = Served((server.address,)).servers


def test_another_number_of_tokens_than_the_ratio_leaves_is_refused(
    loaded: LoadedModel, small: Dataset, tmp_path: Path
) -> None:
    """A server that describes itself as pruned, but is not."""
    server = ServedTiny(loaded, MethodSpec("divprune", 0.5))
    server.record = DIVPRUNE.record(DIVPRUNE.pruner(), loaded.adapter.attends)
    with serving(server):
        bare, backend = served(loaded, server.address)
        with pytest.raises(UserError, match=r"made another prompt of row .* tokens instead of .* keep ratio"):
            evaluate(bare, DIVPRUNE, tmp_path, small, backend)


def test_another_chat_template_is_refused(checkpoint: Callable[[str], Path], small: Dataset, tmp_path: Path) -> None:
    model = load(ModelEntry(name="tiny", source=str(checkpoint("llava"))), CPU)
    model.processor.chat_template = model.processor.chat_template.replace("<user>", "<assistant>")
    with serving(ServedTiny(model, MethodSpec("none"))) as server:
        bare, backend = served(model, server.address)
        with pytest.raises(UserError, match=r"from token 1 on .* instead of .*the checkpoint's own chat template"):
            evaluate(bare, MethodSpec("none"), tmp_path, small, backend)


def troubled(loaded: LoadedModel, trouble: Trouble) -> ServedTiny:
    return ServedTiny(loaded, MethodSpec("none"), trouble)


def refusing(number: int, body: dict[str, Any]) -> Reply | None:
    return (400, {"error": {"message": "the image exceeds\nthe encoder budget"}}) if number == 3 else None


def busy(number: int, body: dict[str, Any]) -> Reply | None:
    return (503, {"error": {"message": "loading"}}) if number == 3 else None


def slow(number: int, body: dict[str, Any]) -> Reply | None:
    time.sleep(1.0 if number == 3 else 0)
    return None


def dead(number: int, body: dict[str, Any]) -> Reply | None:
    if number > 4:
        raise Broken
    return None


def test_a_row_that_the_server_refuses_is_left_out_with_its_reason(
    loaded: LoadedModel, small: Dataset, tmp_path: Path
) -> None:
    with serving(troubled(loaded, refusing)) as server:
        bare, backend = served(loaded, server.address)
        record, found = evaluate(bare, MethodSpec("none"), tmp_path, small, backend)
    [reason] = [one.error for one in found.values() if one.error]
    assert reason == "the server refuses it: the image exceeds the encoder budget"
    entry = record.datasets["small"]
    assert (entry.answered, entry.refused, entry.left_out, entry.score.rows) == (5, 1, 1, 5)  # type: ignore[union-attr]


def test_a_busy_server_is_tried_again(loaded: LoadedModel, small: Dataset, tmp_path: Path) -> None:
    with serving(troubled(loaded, busy)) as server:
        bare, backend = served(loaded, server.address)
        record, _ = evaluate(bare, MethodSpec("none"), tmp_path, small, backend)
    assert (record.datasets["small"].answered, len(server.bodies)) == (6, 8)


def test_a_request_has_a_total_time_limit(loaded: LoadedModel, small: Dataset, tmp_path: Path) -> None:
    with serving(troubled(loaded, slow)) as server:
        bare, backend = served(loaded, server.address)
        with pytest.raises(UserError, match=r"did not answer within 0\.5 s; give more with --timeout"):
            evaluate(bare, MethodSpec("none"), tmp_path, small, Served(backend.addresses, 0.5))


def test_a_server_that_dies_loses_no_answer(loaded: LoadedModel, small: Dataset, tmp_path: Path) -> None:
    server = troubled(loaded, dead)
    with serving(server):
        bare, backend = served(loaded, server.address)
        with pytest.raises(UserError, match=r"cannot be reached .*every answer so far is stored, and the same command"):
            evaluate(bare, MethodSpec("none"), tmp_path, small, backend)
    [record] = Store(tmp_path).records(lambda note: None)
    before = stored(tmp_path, record)
    assert 1 <= len(before) <= 3
    server.trouble, server.bodies = (lambda number, body: None), []
    with serving(server):  # on the same port
        record, after = evaluate(bare, MethodSpec("none"), tmp_path, small, backend)
    assert len(server.bodies) == 1 + 6 - len(before)
    assert {index: after[index] for index in before} == before
    assert record.datasets["small"].score is not None
    with pytest.raises(UserError, match=r"cannot be reached .*start it, or correct --server"):
        _ = Served((server.address,)).servers
