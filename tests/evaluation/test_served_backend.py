"""`--backend vllm`: rows sent to a server over HTTP, which answers with the same tiny model as the usual backend."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.served_runs import CPU, evaluate, served
from tests.helpers.served_tiny import ServedTiny, serving
from uniprune.errors import UserError
from uniprune.evaluation.dataset import Dataset
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.run import Run
from uniprune.evaluation.serving.backend import Served
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.loading import LoadedModel, load
from uniprune.results.backends import agreements
from uniprune.results.store import Store

pytestmark = pytest.mark.end_to_end

DIVPRUNE = MethodSpec("divprune", 0.25)


@pytest.mark.parametrize(("family", "method"), [("llava", MethodSpec("none")), ("qwen2.5-vl", DIVPRUNE)])
def test_answers_scores_and_tokens_are_those_of_the_usual_backend(
    checkpoint: Callable[[str], Path], family: str, method: MethodSpec, small: Dataset, tmp_path: Path
) -> None:
    model = load(ModelEntry(name="tiny", source=str(checkpoint(family))), CPU)
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
    store = Store(tmp_path)
    [line] = map(str, agreements(store, list(store.records()), [record.identity, own.identity]))
    assert line.startswith(f"tiny {method.name}")
    assert f"vllm 0.32.0 against transformers ({own.identity}): 6 of 6 answers equal, 6 of 6 numbers of" in line
    changed = {**found["0"].model_dump(), "prediction": "other", "visual_tokens": [1]}
    rewritten = [json.dumps(changed)] + [found[str(i)].model_dump_json(exclude_none=True) for i in range(1, 6)]
    store.predictions(record.identity, "small").write_text("\n".join(rewritten) + "\n")
    [line] = map(str, agreements(store, list(store.records(lambda note: None)), [record.identity]))
    assert "5 of 6 answers equal, 5 of 6 numbers of visual tokens" in line
    assert line.endswith("other answers: small 0")


def test_a_request_is_greedy_whatever_the_checkpoint_ships(loaded: LoadedModel, small: Dataset, tmp_path: Path) -> None:
    with serving(ServedTiny(loaded, MethodSpec("none"))) as server:
        bare, backend = served(loaded, server.address)
        evaluate(bare, MethodSpec("none"), tmp_path, small, backend)
    trial, *rows = server.bodies
    assert trial["messages"][0]["content"] == [{"type": "text", "text": "?"}]
    assert len(rows) == 6
    neutral = {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1, "min_tokens": 0}
    for body in rows:
        assert {name: body[name] for name in neutral} == neutral
        assert (body["presence_penalty"], body["frequency_penalty"], body["max_tokens"]) == (0, 0, 4)
        assert body["stop_token_ids"] == [loaded.processor.tokenizer.eos_token_id]
        assert "mm_processor_kwargs" not in body


def test_a_method_that_reads_the_question_gets_it_with_the_request(
    loaded: LoadedModel, small: Dataset, tmp_path: Path
) -> None:
    method = MethodSpec("cdpruner", 0.25)
    with serving(ServedTiny(loaded, method)) as server:
        bare, backend = served(loaded, server.address)
        evaluate(bare, method, tmp_path, small, backend)
    asked = {str(body.get("mm_processor_kwargs")) for body in server.bodies[1:]}
    assert asked == {f"{{'uniprune_question': 'is there a {color} circle ?'}}" for color in ("red", "green", "blue")}


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
        other = server.metrics().replace('a\\"b', "gprune")
        both = server.metrics() + other
        server.metrics = lambda: both  # type: ignore[method-assign]
        with pytest.raises(UserError, match=r"says that it serves several methods: .* an empty folder of its own"):
            _ = Served((server.address,)).servers
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
