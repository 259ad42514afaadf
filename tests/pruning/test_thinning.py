"""Thinning out a ranking, against a transcription of its definition."""

import sys

import pytest
import torch

from tests.helpers.points import cloud, cosine
from uniprune.pruning import thinning
from uniprune.pruning.functional import cosine_similarity
from uniprune.pruning.thinning import LISTED, Shortlists, drop_most_similar

seeds = pytest.mark.parametrize("seed", range(4))


@seeds
@pytest.mark.parametrize(("keep", "step"), [(0, 8), (1, 8), (5, 8), (7, 3), (20, 2), (24, 8)])
def test_drop_most_similar(seed: int, keep: int, step: int) -> None:
    x = cloud(seed)
    rest = list(range(23, -1, -1))
    while keep and len(rest) > keep:
        even, odd = rest[0::2], rest[1::2]
        scored = sorted(even, key=lambda a: -max(cosine(x[a], x[b]) for b in odd))
        rest = scored[min(step, len(rest) - keep, len(even)) :] + odd
    got = drop_most_similar(cosine_similarity(x, x), torch.arange(23, -1, -1), keep, step)
    assert got.tolist() == rest[:keep]
    assert len(got) == keep


@seeds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("digits", [1, 9])
def test_shortlists_change_nothing(monkeypatch: pytest.MonkeyPatch, seed: int, dtype: torch.dtype, digits: int) -> None:
    """Not with many equal similarities either, nor where the list of a token does not name what it is asked about."""
    similarity = cosine_similarity(cloud(seed, 4 * LISTED)).to(dtype).mul(10**digits).round()
    ranked = torch.randperm(len(similarity), generator=torch.Generator().manual_seed(seed))[:-5]
    want = drop_most_similar(similarity, ranked, 7, 3)
    tokens, others = ranked.split(len(ranked) // 2 + 1)
    lists = Shortlists(similarity, ranked)
    assert torch.equal(lists.largest(tokens, others), similarity[tokens][:, others].amax(1))
    assert torch.equal(lists.largest(tokens, others[-1:]), similarity[tokens, others[-1]])
    monkeypatch.setattr(thinning, "MANY", LISTED)
    assert torch.equal(drop_most_similar(similarity, ranked, 7, 3), want)


def test_prompts_together() -> None:
    similarity = torch.stack([cosine_similarity(cloud(seed).double()) for seed in (1, 2)])
    ranked = torch.stack([torch.arange(24), torch.arange(23, -1, -1)])
    for keep in (0, 5, 24):
        got = drop_most_similar(similarity, ranked, keep, 3)
        assert got.tolist() == [
            drop_most_similar(*one, keep, 3).tolist() for one in zip(similarity, ranked, strict=True)
        ]


def test_a_machine_without_a_working_triton_keeps_the_rounds() -> None:
    if torch.cuda.is_available():
        pytest.skip("Triton works here")
    pytest.importorskip("triton", reason="Triton exists for Linux only")
    with pytest.warns(RuntimeWarning, match="rankings are thinned out on cpu round by round, slower but right"):
        assert not thinning._proven.__wrapped__(torch.device("cpu"), torch.float64, 512)
    assert thinning.fused(torch.eye(3), 3) is None


def test_a_triton_that_cannot_be_imported_keeps_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "uniprune.pruning.thinning_triton", raising=False)
    monkeypatch.delattr("uniprune.pruning.thinning_triton", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.warns(RuntimeWarning, match="triton"):
        assert not thinning._proven.__wrapped__(torch.device("cpu"), torch.float64, 512)


@pytest.mark.end_to_end
def test_kernels_compile_for_a_gpu() -> None:
    """Down to machine code of compute capability 9.0, in the size that most images need."""
    triton = pytest.importorskip("triton", reason="Triton exists for Linux only")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from uniprune.pruning import thinning_triton as kernels

    size = 2048
    few, many = kernels.SIZES[size]
    both = {"similarity": "*fp64", "rest": "*i32", "odd": "*i8", "values": "*fp64", "listed": "*i32"}
    whole = dict.fromkeys(("tokens", "width", "length"), "i32")
    constants = {"SIZE": size, "LISTED": kernels.LISTED}
    halves = {"SIZE": size // 2, "STEPS": 10, "STRIDE": kernels.MOST, "LISTED": kernels.LISTED}
    rounds = {"keys": "*i64"} | whole | dict.fromkeys(("keep", "step", "rounds"), "i32")
    for kernel, more, constexprs, warps in (
        (kernels._list, whole, constants, few),
        (kernels._round, rounds, halves, many),
    ):
        signature = both | more | dict.fromkeys(constexprs, "constexpr")
        source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs)
        built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
        assert built.asm["cubin"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("tokens", "digits"),
    [(2, 13), (16, 1), (256, 13), (576, 13), (576, 1), (1280, 13), (1280, 2), (2880, 13), (4096, 13)],
)
def test_kernels_on_the_gpu(tokens: int, digits: int) -> None:
    """The picks of the CPU, without a wait; several prompts as one."""
    draw = torch.Generator().manual_seed(tokens)
    centres = torch.randn(8, 64, generator=draw)[torch.arange(tokens) % 8]
    points = (centres + 0.5 * torch.randn(2, tokens, 64, generator=draw)).double()
    similarity = torch.stack([cosine_similarity(one) for one in points]).round(decimals=digits)
    ranked = torch.stack([torch.randperm(tokens, generator=draw) for _ in points])[:, : tokens - tokens // 18]
    keep = max(1, tokens // 18)
    there, order = similarity.cuda(), ranked.cuda()
    assert thinning.fused(there, ranked.shape[1]) is not None
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = drop_most_similar(there, order, keep)
        one = drop_most_similar(there[1], order[1], keep)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert got.cpu().tolist() == drop_most_similar(similarity, ranked, keep).tolist()
    assert torch.equal(one, got[1])
