"""KV caches: static, quantised and offloaded ones give the answers of a DynamicCache, or are refused by name."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import transformers.cache_utils
from torch import Tensor
from transformers import DynamicCache, QuantizedCache, StaticCache
from transformers.cache_utils import QuantizedLayer

from tests.helpers.oracles import dropped_by, gathered_layers
from tests.helpers.pruners import KINDS, Plan, generate
from tests.helpers.tiny import FAMILIES, build, inputs
from uniprune.engine import prune
from uniprune.engine.served import check_offloading
from uniprune.errors import UnsupportedError
from uniprune.methods.mustdrop import MustDrop
from uniprune.methods.random_pre import RandomPre

pytestmark = pytest.mark.end_to_end

STEPS = 8
STATIC = ("static", "sliding_window", "hybrid_chunked")
"""Values of `cache_implementation` that make a StaticCache; transformers names the last two deprecated."""
SAMPLED = {("llava", "static")}
"""Of the matrix, what `make test` runs; of other families and kernels, `test_decoding.py` has a part."""
CASES = [
    pytest.param(family, name, marks=() if (family, name) in SAMPLED else pytest.mark.exhaustive)
    for family in FAMILIES
    for name in (*STATIC, "dynamic", "hybrid")
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("family", "implementation"), CASES)
def test_every_implementation_answers_as_a_dynamic_cache_or_is_refused(
    family: str, implementation: str, kind: str
) -> None:
    model, x, pruner = build(family), inputs(family, (1, 2)), KINDS[kind]
    if kind == "compact" and family.startswith("qwen"):
        pytest.skip("positions are of three axes")
    with prune(model, pruner) as session:
        tokens, logits = generate(model, x, STEPS)
        if implementation in STATIC and kind == "evicting":
            with pytest.raises(UnsupportedError, match=r"needs a DynamicCache .* is a StaticLayer"):
                generate(model, x, STEPS, cache_implementation=implementation)
            return
        got_tokens, got = generate(model, x, STEPS, cache_implementation=implementation)
    want, report = session.reports
    assert report.pruned
    assert [row.entering for row in report.rows] == [row.entering for row in want.rows]
    assert torch.equal(got_tokens, tokens)
    torch.testing.assert_close(got, logits, atol=2e-4, rtol=1e-3)


class Rounded(QuantizedLayer):
    """A quantised layer without a package: whole numbers of 8 bits with one scale."""

    def _quantize(self, tensor: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        scale = tensor.abs().amax() / 127
        return (tensor / scale).round().to(torch.int8), scale

    def _dequantize(self, quantised: tuple[Tensor, Tensor]) -> Tensor:
        return quantised[0] * quantised[1]


def quantised(model: Any, backend: str, monkeypatch: pytest.MonkeyPatch) -> QuantizedCache:
    """Return an empty cache of a backend: "fp8" of transformers, or `Rounded`, which requantises every 3 tokens."""
    config, options = model.get_decoder().config, {} if backend == "fp8" else {"residual_length": 3}
    monkeypatch.setattr(transformers.cache_utils, "QuantoQuantizedLayer", Rounded)
    return QuantizedCache("quanto" if backend == "rounded" else backend, config, **options)


needs_fp8 = pytest.mark.skipif(
    not hasattr(transformers.cache_utils, "Fp8QuantizedLayer"), reason="this version of transformers has no fp8 cache"
)
backend = pytest.mark.parametrize("backend", ["rounded", pytest.param("fp8", marks=needs_fp8)])


@backend
@pytest.mark.parametrize("family", ["llava", pytest.param("qwen2_5_vl", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("plan", [{0: 0.4}, {2: 0.5, 4: 0.25}], ids=str)
def test_a_quantised_cache_holds_what_that_of_a_shorter_prompt_would(
    family: str, plan: dict[int, float], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding changes answers, so the reference rounds, too: a loop over the layers on the same kind of cache."""
    model, x = build(family), inputs(family)
    with prune(model, Plan(plan=plan)) as session:
        tokens, logits = generate(model, x, STEPS, past_key_values=quantised(model, backend, monkeypatch))
        exact = generate(model, x, STEPS)[1]
    keep = {k: ~columns[0] for k, columns in dropped_by(session.reports[0], x).items()}
    own = quantised(model, backend, monkeypatch)
    want = gathered_layers(model, x, keep, STEPS, cache=own)[1]
    assert tokens[0].tolist() == want.argmax(-1).tolist()
    torch.testing.assert_close(logits[0], want, atol=2e-4, rtol=1e-3)
    assert not torch.allclose(exact[0], want, atol=2e-3)
    assert session.reports[0].rows[0].kv_bytes is None


@backend
def test_eviction_refuses_quantised_caches(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = build("llava"), inputs("llava")
    cache = quantised(model, backend, monkeypatch)
    with (
        prune(model, MustDrop(ratio=0.34)),
        pytest.raises(UnsupportedError, match=r"needs a DynamicCache .* is a (Rounded|Fp8QuantizedLayer)"),
        torch.no_grad(),
    ):
        model(**x, past_key_values=cache, use_cache=True)


def test_eviction_refuses_offloaded_caches() -> None:
    """Their keys are on the way to the CPU, and a copy that has not arrived would be cut."""
    model, x, cache = build("llava"), inputs("llava"), DynamicCache()

    def offload(*_: Any) -> None:  # after the layers, whose updates need streams of a GPU
        cache.offloading = True

    handle = model.get_decoder().norm.register_forward_hook(offload)
    try:
        with (
            prune(model, MustDrop(ratio=0.34)),
            pytest.raises(UnsupportedError, match=r"is an? offloaded DynamicLayer"),
            torch.no_grad(),
        ):
            model(**x, past_key_values=cache, use_cache=True)
    finally:
        handle.remove()


def test_unknown_caches_are_refused() -> None:
    class Summaries(DynamicCache):
        """A cache that could merge tokens on its own."""

    model, x = build("llava"), inputs("llava")
    with prune(model, RandomPre(ratio=0.5)) as session:
        with pytest.raises(UnsupportedError, match=r"class Summaries was not tried .* DynamicCache, StaticCache"):
            model(**x, past_key_values=Summaries(), use_cache=True)
        assert session.reports == []


def test_offloaded_static_caches_are_refused() -> None:
    model, x = build("llava"), inputs("llava")
    cache = StaticCache(config=model.get_decoder().config, max_cache_len=200, offloading=True)
    with prune(model, RandomPre(ratio=0.5)) as session:
        with pytest.raises(UnsupportedError, match=r"an offloaded StaticCache .* pass an offloaded DynamicCache"):
            model(**x, past_key_values=cache, use_cache=True)
        assert session.reports == []


def test_offloading_needs_a_release_whose_copies_wait() -> None:
    for release in ("5.17.0", "5.19.0", "5.20.0.dev0"):
        with pytest.raises(UnsupportedError, match=rf"an offloaded DynamicCache of transformers {re.escape(release)} "):
            check_offloading(DynamicCache, release)
    for release in ("5.20.0", "5.100.0"):
        check_offloading(DynamicCache, release)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_a_static_cache_can_be_emptied_and_used_again(family: str) -> None:
    model, x, shorter = build(family), inputs(family, (2,)), inputs(family, (1,), seed=1)
    cache = StaticCache(config=model.get_decoder().config, max_cache_len=x["input_ids"].shape[1] + STEPS)
    with prune(model, Plan(plan={0: 0.6, 3: 0.3})):
        for batch in (x, shorter):
            want = generate(model, batch, STEPS)[0]
            cache.reset()
            assert torch.equal(generate(model, batch, STEPS, past_key_values=cache)[0], want)


@pytest.mark.parametrize("kind", ["StaticCache", "QuantizedCache"])
def test_a_later_turn_with_images_needs_a_dynamic_cache(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = build("llava"), inputs("llava")
    roomy = StaticCache(config=model.get_decoder().config, max_cache_len=200)
    cache = roomy if kind == "StaticCache" else quantised(model, "rounded", monkeypatch)
    both = torch.ones(1, 2 * x["input_ids"].shape[1], dtype=torch.long)
    with prune(model, RandomPre(ratio=0.5)) as session, torch.no_grad():
        model(**x, past_key_values=cache, use_cache=True)
        with pytest.raises(UnsupportedError, match=f"new images on top of a filled KV cache .* it is a {kind}"):
            model(**x | {"attention_mask": both}, past_key_values=cache)
    assert len(session.reports) == 1
