"""Training end to end on the embedded model: what a step does, what is stored, and that a run resumes exactly."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from tests.helpers.toy import toy_model, toy_samples
from uniprune.errors import UserError
from uniprune.models.tiny.language import FOLDER
from uniprune.pruning.budget import floor_count
from uniprune.synthetic.letters import training_set
from uniprune.tuning.checkpoints import last_checkpoint
from uniprune.tuning.packing import row_loss
from uniprune.tuning.run import TuningRun
from uniprune.tuning.settings import PairChoice, Settings
from uniprune.tuning.step_log import ProbeLine, StepLine, StepLog
from uniprune.tuning.tuning_data import load_tuning_data

pytestmark = pytest.mark.end_to_end

pytest.importorskip("peft")


def settings(tmp_path: Path, **more: Any) -> Settings:
    data = tmp_path / "data.jsonl"
    if not data.exists():
        data.write_text("\n".join(json.dumps(row) for row in training_set(640)[:32]))
    fields = {"model": str(FOLDER), "data": [str(data)], "pairs": [], "batch": 4, "accumulation": 1, "cutoff": 64,
            "epochs": 2, "rate": 0.005, "save_every": 3, "probe": 8, "sample_ratio": 0.5, "row_tokens": 60}  # fmt: skip
    return Settings.model_validate(fields | more)


def run(tmp_path: Path, folder: str, samples: str = "q", tokens: str = "q", seed: int = 0, **more: Any) -> TuningRun:
    choice = more.pop("choice", {})
    made = settings(tmp_path, **more)
    data = load_tuning_data(made, Console(quiet=True))
    return TuningRun(made, PairChoice(samples=samples, tokens=tokens, **choice), seed, data, tmp_path / folder)


def decisions(one: TuningRun) -> list[dict[str, Any]]:
    return [line.model_dump(exclude={"seconds"}) for line in one.step_log().steps]


def weights(one: TuningRun) -> dict[str, torch.Tensor]:
    return dict(load_file(one.folder / "model" / "adapter_model.safetensors"))


class Stop(Exception):
    """An interruption."""


@pytest.mark.parametrize(
    ("pair", "rescore"),
    [(("q", "q"), 2), pytest.param(("q", "q"), 1, marks=pytest.mark.slow),
     pytest.param(("infobatch", "random"), 1, marks=pytest.mark.slow)],
)  # fmt: skip
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    tmp_path: Path, pair: tuple[str, str], rescore: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path, "whole", *pair, rescore=rescore)
    whole.perform()
    cut = run(tmp_path, "cut", *pair, rescore=rescore)

    def stop_before_the_line(step: int, of: int) -> None:
        if step == 5:
            raise Stop(f"step {step}")

    def stop_after_the_line(log: StepLog, line: StepLine | ProbeLine) -> None:
        append(log, line)
        if line.done == 11:
            raise Stop("step 11")

    with pytest.raises(Stop, match="step 5"):
        cut.perform(stop_before_the_line)
    assert cut.stored() is None
    assert last_checkpoint(cut.folder) == cut.folder / "checkpoint-3"
    append = StepLog.append
    with monkeypatch.context() as patch, pytest.raises(Stop, match="step 11"):
        patch.setattr(StepLog, "append", stop_after_the_line)
        cut.perform()
    assert cut.stored() is None
    assert last_checkpoint(cut.folder) == cut.folder / "checkpoint-9"
    assert len(decisions(cut)) == 11
    with (cut.folder / "steps.jsonl").open("a") as file:
        file.write('{"step": 11, "lo')  # as a kill may leave it
    cut.perform()
    assert cut.identity == whole.identity
    assert len(decisions(whole)) == 16
    assert decisions(cut) == decisions(whole)
    assert [p.model_dump() for p in cut.step_log().probes] == [p.model_dump() for p in whole.step_log().probes]
    resumed, uninterrupted = weights(cut), weights(whole)
    assert resumed.keys() == uninterrupted.keys()
    assert all(torch.equal(resumed[name], uninterrupted[name]) for name in resumed)
    assert any(bool(tensor.any()) for name, tensor in resumed.items() if "lora_B" in name)


def test_a_checkpoint_cut_off_while_it_was_written_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-12").mkdir()
    (tmp_path / "checkpoint-15").mkdir()
    (tmp_path / "checkpoint-15" / "trainer_state.json").write_text('{"epoch": 1')
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert last_checkpoint(tmp_path, ["scores.pt"]) is None


def test_remembered_scores_are_those_of_the_epoch_before(tmp_path: Path) -> None:
    one = run(tmp_path, "out", rescore=2)
    one.perform()
    seen: dict[int, list[float]] = {}
    for line in one.step_log().steps:
        assert ("score" in line.seconds) and line.batches[0].perplexity is not None
        for index, value in zip(line.batches[0].index, line.batches[0].perplexity, strict=True):
            seen.setdefault(index, []).append(value)
    assert len(seen) == 32
    assert all(len(values) == 2 and values[0] == values[1] for values in seen.values())
    fresh = run(tmp_path, "fresh")
    fresh.perform()
    assert decisions(fresh)[:8] == decisions(one)[:8]
    assert decisions(fresh)[8:] != decisions(one)[8:]


def test_budgets_are_exact_and_only_misconceptions_lose_tokens(tmp_path: Path) -> None:
    one = run(tmp_path, "out", epochs=1, accumulation=2)
    record = one.perform()
    answers = {sample.index: len(sample.answer) for sample in one.data.train}
    lines = one.step_log().steps
    assert len(lines) == 4
    seen = [i for line in lines for batch in line.batches for i in batch.index]
    assert sorted(seen) == sorted(answers)
    removed = 0
    for line in lines:
        trained = 0
        assert len(line.batches) == 2
        for batch in line.batches:
            assert len(batch.index) == 4
            assert len(batch.kept) == 2
            assert batch.quadrant is not None
            for place in batch.kept:
                size = answers[batch.index[place]]
                gone = batch.removed.get(place, [])
                trained += size - len(gone)
                assert len(gone) == (size - floor_count(size, 0.5) if batch.quadrant[place] == 2 else 0)
                removed += len(gone)
        assert line.trained == trained
        assert line.run < line.tokens
    assert removed > 0
    assert record.before == record.after == {}


def test_full_none_is_ordinary_fine_tuning(tmp_path: Path) -> None:
    """The first step's loss and gradient are those of the model on padded rows of everything."""
    model, samples = toy_model(), toy_samples(6)
    count = sum(len(s.answer) for s in samples)
    loss = row_loss(model, [(s, 1.0) for s in samples]) / count
    loss.backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    total = torch.zeros(())
    for sample in samples:
        labels = torch.full_like(sample.ids, -100)
        labels[sample.answer] = sample.ids[sample.answer]
        total = total + model(input_ids=sample.ids[None], labels=labels[None]).loss * len(sample.answer)
    (total / count).backward()
    torch.testing.assert_close(loss, total / count)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, atol=1e-5, rtol=1e-3)


def test_physical_removal_shortens_the_sequence_and_mask_does_not(tmp_path: Path) -> None:
    lines = {}
    for removal in ("physical", "mask"):
        one = run(tmp_path, removal, "full", "random", epochs=1, accumulation=4, choice={"removal": removal})
        one.perform()
        lines[removal] = one.step_log().steps
    for short, long in zip(lines["physical"], lines["mask"], strict=True):
        assert short.trained == long.trained < long.answers
        assert long.run == long.tokens
        assert short.run == short.tokens - (short.answers - short.trained)


def test_runs_differ_by_what_determines_them_only(tmp_path: Path) -> None:
    base = run(tmp_path, "out")
    assert base.identity == run(tmp_path, "else", save_every=7).identity
    others = [run(tmp_path, "out", seed=1), run(tmp_path, "out", tokens="none"), run(tmp_path, "out", rate=0.1),
              run(tmp_path, "out", choice={"set": {"tokens.keep": "high"}}),
              run(tmp_path, "out", choice={"removal": "mask"})]  # fmt: skip
    assert len({base.identity, *(one.identity for one in others)}) == 6
    assert base.identity != run(tmp_path, "out", test=["generated"]).identity


def test_a_loss_that_is_not_finite_voids_the_step_and_a_row_of_them_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uniprune.tuning import trainer

    calls = iter(range(10**6))

    def broken(model: Any, row: Any) -> torch.Tensor:
        loss = row_loss(model, row)
        return loss * math.nan if next(calls) in bad else loss

    monkeypatch.setattr(trainer, "row_loss", broken)
    bad: Any = {0}
    one = run(tmp_path, "one", "full", "none", epochs=1, accumulation=2, row_tokens=4000)
    one.perform()
    losses = [line.loss for line in one.step_log().steps]
    assert losses[0] is None
    assert all(loss is not None for loss in losses[1:])
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(one).values())
    bad = range(10**6)
    two = run(tmp_path, "two", "full", "none", epochs=2)
    with pytest.raises(UserError, match="not finite in 10 steps in a row"):
        two.perform()
    assert last_checkpoint(two.folder) is not None


def test_the_reference_models_losses_decide_for_rho(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="reference: FOLDER"):
        run(tmp_path, "out", "random", "rho-1").perform()
    one = run(tmp_path, "out", "random", "rho-1", reference=str(FOLDER), epochs=1, accumulation=4)
    one.perform()
    assert any(batch.removed for line in one.step_log().steps for batch in line.batches)


@pytest.mark.parametrize("tokens", ["sparsevlm", "fastv"])
def test_other_token_strategies_train(tmp_path: Path, tokens: str) -> None:
    one = run(tmp_path, "out", "longest", tokens, epochs=1, accumulation=4, probe=0)
    one.perform()
    assert all(math.isfinite(line.loss or math.nan) for line in one.step_log().steps)
    assert not one.step_log().probes


def test_the_base_model_is_what_the_kinds_of_items_assume() -> None:
    from transformers import AutoModelForCausalLM

    from tests.helpers.toy import TOKENIZER
    from uniprune.synthetic.letters import held_out_set
    from uniprune.tuning.accuracy import exact_matches
    from uniprune.tuning.instruction_data import Problems, encode_rows
    from uniprune.tuning.scoring import Scorer

    scorer = Scorer(AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32))
    scores = exact_matches(scorer, encode_rows(held_out_set(), TOKENIZER, 64, Problems()))
    assert scores["redundant"].right == scores["redundant"].items
    assert scores["clean"].right == 0
    assert 0 < scores["hard"].right < 0.3 * scores["hard"].items
    train = encode_rows(training_set(400), TOKENIZER, 64, Problems())
    unsure = {kind: [] for kind in ("clean", "redundant", "hard")}  # type: dict[str, list[float]]
    for sample, score in zip(train, scorer.score(train), strict=True):
        unsure.setdefault(sample.kind, []).append(float(score.entropy.mean()))
    middle = {kind: sorted(values)[len(values) // 2] for kind, values in unsure.items()}
    assert max(middle["clean"], middle["redundant"]) < 0.05 < middle["hard"]
