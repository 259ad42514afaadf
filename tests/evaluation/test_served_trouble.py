"""Servers that refuse, wait, die or answer nonsense, under `--backend vllm`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.served_runs import evaluate, served, stored
from tests.helpers.served_tiny import Broken, Reply, ServedTiny, Trouble, serving
from uniprune.errors import UserError
from uniprune.evaluation.dataset import Dataset
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.serving.backend import Served
from uniprune.modeling.loading import LoadedModel
from uniprune.results.store import Store

pytestmark = pytest.mark.end_to_end


def troubled(loaded: LoadedModel, trouble: Trouble) -> ServedTiny:
    return ServedTiny(loaded, MethodSpec("none"), trouble)


def refusing(number: int, body: dict[str, Any]) -> Reply | None:
    return (400, {"error": {"message": "the image exceeds\nthe encoder budget"}}) if number == 3 else None


def busy(number: int, body: dict[str, Any]) -> Reply | None:
    return (503, {"error": {"message": "loading"}}) if number == 3 else None


def slow(number: int, body: dict[str, Any]) -> Reply | None:
    time.sleep(1.0 if number == 3 else 0)
    return None


def ended(number: int, body: dict[str, Any]) -> Reply | None:
    """End an answer at a token that only the server calls an end."""
    if number < 3:
        return None
    top = [{"token": "token_id:7", "logprob": -0.1}]
    choice = {"token_ids": [7], "finish_reason": "stop", "logprobs": {"content": [{"top_logprobs": top}]}}
    return 200, {"choices": [choice], "prompt_token_ids": []}


def broken(number: int, body: dict[str, Any]) -> Reply | None:
    """Send what vLLM makes of logits that are NaN."""
    top = [{"token": f"token_id:{token}", "logprob": -9999.0} for token in range(20)]
    choice = {"token_ids": [7], "finish_reason": "length", "logprobs": {"content": [{"top_logprobs": top}]}}
    return (200, {"choices": [choice], "prompt_token_ids": []}) if number == 3 else None


def plain(number: int, body: dict[str, Any]) -> Reply | None:
    """Answer as a server without vLLM's additions."""
    return 200, {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}


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


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (ended, r"ended row \d with token \[7\] \(stop\), which ends no sequence .*these do: \[3\]"),
        (broken, r"logits are NaN or infinite for row \d"),
        (plain, r"reply to row \d lacks token ids .*needs a server of vLLM"),
    ],
)
def test_replies_that_make_no_prediction_stop_the_run(
    loaded: LoadedModel, small: Dataset, tmp_path: Path, trouble: Trouble, reason: str
) -> None:
    with serving(troubled(loaded, trouble)) as server:
        bare, backend = served(loaded, server.address)
        with pytest.raises(UserError, match=reason):
            evaluate(bare, MethodSpec("none"), tmp_path, small, backend)


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
