"""Evaluation, `bench` and the conformance checks decode alike, whatever a checkpoint's own generation settings are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor

from uniprune.conformance import method_under_test
from uniprune.evaluation.generation import Generator
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.processing import EncodedRequest
from uniprune.latency.measure import Bench
from uniprune.latency.options import BenchOptions
from uniprune.latency.rows import BenchFile
from uniprune.latency.timed_model import load_timed
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.loading import LoadedModel, Placement, load
from uniprune.utils.console import RunProgress

pytestmark = pytest.mark.end_to_end

TOKENS = 6
CPU = Placement("float32", "sdpa", "cpu")


@pytest.fixture
def loaded(checkpoint: Callable[[str], Path]) -> LoadedModel:
    """A model whose checkpoint samples and penalises repetitions, as some published ones do."""
    model = load(ModelEntry(name="tiny", source=str(checkpoint("llava"))), CPU)
    settings = model.model.generation_config
    settings.repetition_penalty, settings.do_sample, settings.temperature, settings.top_k = 1.05, True, 0.1, 1
    settings.eos_token_id, settings.pad_token_id = None, 0
    return model


@pytest.fixture
def penalties(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One entry per call of the repetition penalty."""
    calls: list[int] = []
    penalise = RepetitionPenaltyLogitsProcessor.__call__

    def counted(processor: Any, input_ids: Tensor, scores: Tensor) -> Tensor:
        calls.append(1)
        return penalise(processor, input_ids, scores)

    monkeypatch.setattr(RepetitionPenaltyLogitsProcessor, "__call__", counted)
    return calls


def test_no_penalty_runs_and_all_three_generate_the_same_tokens(
    loaded: LoadedModel, penalties: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    generate, calls = loaded.model.generate, []

    def recorded(**inputs: Any) -> Any:
        output = generate(**inputs)
        sequences = output if isinstance(output, Tensor) else output.sequences
        calls.append((inputs, sequences[:, inputs["input_ids"].shape[1] :].tolist()))
        return output

    monkeypatch.setattr(loaded.model, "generate", recorded)
    monkeypatch.setattr("uniprune.latency.timed_model.with_weights", lambda outlined: outlined)
    timed = load_timed("tiny", random_weights=False, placement=CPU, outlined=loaded)
    options = BenchOptions(new_tokens=TOKENS, repeats=1, warmup=0)
    with RunProgress(1, Console(quiet=True)) as progress:
        [row] = Bench(timed, [MethodSpec("none")], options, BenchFile(tmp_path / "bench.jsonl"), progress).run()
    assert row.error is None
    inputs = {name: value for name, value in calls[0][0].items() if isinstance(value, Tensor)}
    encoded = EncodedRequest("0", length=TOKENS, inputs={name: value.numpy() for name, value in inputs.items()})
    [text] = Generator(loaded).generate([encoded])
    with torch.no_grad():
        method_under_test.generate(loaded.model, inputs, TOKENS)
    tokens = [tokens for _, tokens in calls]
    assert len(tokens) == 3
    assert tokens[0] == tokens[1] == tokens[2]
    assert len(tokens[0][0]) == text.tokens == TOKENS
    assert not penalties

    recorded(**inputs, max_new_tokens=TOKENS)
    assert len(penalties) == TOKENS, "the checkpoint's own settings do penalise"
