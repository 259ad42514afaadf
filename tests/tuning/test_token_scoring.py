"""The scoring forward against plain logits, in one row and in many, whatever the block sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.toy import toy_model, toy_samples
from uniprune.errors import UnsupportedError
from uniprune.tuning import scoring
from uniprune.tuning.instruction_data import Sample
from uniprune.tuning.packing import pack
from uniprune.tuning.scoring import Scorer, head_statistics
from uniprune.tuning.strategy import TOKENS


def plain(model: Any, sample: Sample) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        logits = model(input_ids=sample.ids[None], use_cache=False).logits[0][sample.answer - 1].double()
    logp = logits.log_softmax(-1)
    target = sample.ids[sample.answer]
    return -logp.gather(-1, target[:, None])[:, 0], -(logp.exp() * logp).sum(-1), logits.argmax(-1) == target


@pytest.mark.parametrize("row_tokens", [1, 40, 100, 4096])
def test_packed_scores_are_those_of_single_samples(row_tokens: int) -> None:
    model, samples = toy_model(), toy_samples(9)
    for sample, got in zip(samples, Scorer(model, row_tokens).score(samples), strict=True):
        for packed, single in zip((got.nll, got.entropy, got.right), plain(model, sample), strict=True):
            torch.testing.assert_close(packed.double(), single.double(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("block", [1, 7, 16, 1000])
@pytest.mark.parametrize("bias", [False, True])
def test_blocks_of_the_vocabulary_change_nothing(block: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "VOCABULARY", block)
    monkeypatch.setattr(scoring, "POSITIONS", 5)
    torch.manual_seed(block)
    head, states, targets = nn.Linear(8, 33, bias=bias), 30 * torch.randn(12, 8), torch.randint(33, (12,))
    with torch.no_grad():
        nll, entropy, right = head_statistics(states, head, targets)
        logp = head(states).double().log_softmax(-1)
    torch.testing.assert_close(nll.double(), -logp.gather(-1, targets[:, None])[:, 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(entropy.double(), -(logp.exp() * logp).sum(-1), atol=1e-4, rtol=1e-3)
    assert torch.equal(right, logp.argmax(-1) == targets)


def test_no_logits_of_all_positions_exist() -> None:
    """The largest tensor of a scoring forward has fewer values than positions x vocabulary."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                self.size = max(self.size, result.numel())
            return result

    model, samples = toy_model(), toy_samples(16)
    model.resize_token_embeddings(50_000)
    weights = model.get_output_embeddings().weight.numel()
    with Largest() as largest:
        Scorer(model).score(samples)
    positions = sum(len(s.ids) for s in samples)
    assert positions * 50_000 > 10 * weights
    assert largest.size <= max(weights, sum(len(s.answer) for s in samples) * scoring.VOCABULARY)


def test_scoring_leaves_the_model_as_it_was() -> None:
    model = toy_model().train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    state = torch.random.get_rng_state()
    Scorer(model).score(toy_samples(4))
    assert model.training
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], p) and p.grad is None for name, p in model.named_parameters())


def test_attention_and_states_are_the_models_own() -> None:
    model, sample = toy_model(), toy_samples(1)[0]
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(input_ids=sample.ids[None], output_attentions=True, output_hidden_states=True, use_cache=False)
    attention = output.attentions[-1][0].mean(0)
    model.set_attn_implementation("sdpa")
    last = Scorer(model).tokens(sample, TOKENS.get("fastv")())["attention"]
    torch.testing.assert_close(last, attention[-1:, sample.answer], atol=1e-5, rtol=1e-4)
    both = Scorer(model).tokens(sample, TOKENS.get("sparsevlm")())
    torch.testing.assert_close(both["attention"], attention[sample.answer][:, sample.answer], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both["states"], output.hidden_states[-1][0, sample.answer], atol=1e-5, rtol=1e-4)


def test_models_that_change_their_logits_are_refused() -> None:
    model, samples = toy_model(), toy_samples(2)
    Scorer(model).verify(samples)

    class Capped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.device = model, model.device

        def get_base_model(self) -> Any:
            return self.inner

        def forward(self, **kwargs: Any) -> Any:
            output = self.inner(**kwargs)
            output.logits = output.logits.tanh()
            return output

    with pytest.raises(UnsupportedError, match="log-likelihoods differ"):
        Scorer(Capped()).verify(samples)


def test_models_that_let_packed_samples_see_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = toy_model(), toy_samples(3)
    decoder = model.get_decoder()

    def leaking(input_ids: torch.Tensor, **kwargs: Any) -> Any:
        return decoder(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), **kwargs)

    monkeypatch.setattr(model, "get_decoder", lambda: leaking)
    with pytest.raises(UnsupportedError, match="attend to each other"):
        Scorer(model).verify(samples)


def test_scores_in_bfloat16_are_close() -> None:
    model, samples = toy_model(spread=0.1), toy_samples(6)
    for low, high in zip(Scorer(model, dtype=torch.bfloat16).score(samples), Scorer(model).score(samples), strict=True):
        assert low.nll.dtype == torch.float32
        assert not torch.equal(low.nll, high.nll)
        torch.testing.assert_close(low.nll, high.nll, atol=0.05, rtol=0.05)


def test_rows_hold_every_sample_once_and_respect_their_size() -> None:
    lengths = [5, 90, 30, 30, 40, 200, 1]
    rows = pack(lengths, 100)
    assert sorted(i for row in rows for i in row) == list(range(7))
    assert all(sum(lengths[i] for i in row) <= 100 or len(row) == 1 for row in rows)
    assert len(rows) == 3
