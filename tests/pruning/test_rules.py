"""The GPU kernels of shared rules: compiled without a GPU, left out where they do not work."""

import pytest
import torch

from uniprune.pruning import functional
from uniprune.pruning.functional import _group_means, _top_k, group_means, top_k, true_places

triton = pytest.importorskip("triton", reason="Triton exists for Linux only")


@pytest.mark.end_to_end
def test_kernels_compile_for_a_gpu() -> None:
    """Down to machine code of compute capability 9.0."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from uniprune.pruning import rules_triton as rules

    for numbers in ("fp32", "bf16", "u8"):
        constants = {"OWN": rules.OWN, "OTHERS": rules.OTHERS}
        signature = {"scores": f"*{numbers}", "order": "*i64", "tokens": "i32", "keep": "i32"}
        source = ASTSource(rules._ranked, signature | dict.fromkeys(constants, "constexpr"), constants)
        assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]
    constants = {"MEMBERS": rules.MEMBERS, "COLUMNS": rules.COLUMNS}
    for numbers in ("fp32", "bf16", "fp64"):
        signature = {
            "features": f"*{numbers}",
            "group": "*i64",
            "means": f"*{numbers}",
            "tokens": "i32",
            "width": "i32",
        }
        source = ASTSource(rules._group_means, signature | dict.fromkeys(constants, "constexpr"), constants)
        assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]


def test_a_machine_without_a_working_triton_keeps_the_operations() -> None:
    if torch.cuda.is_available():
        pytest.skip("Triton works here")
    with pytest.warns(RuntimeWarning, match="rules of selection run on cpu as several operations each, slower"):
        assert not functional._proven.__wrapped__(torch.device("cpu"))
    assert functional.fused(torch.ones(3)) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [1, 33, 1280, 16000, 20000])
def test_kernels_on_the_gpu(tokens: int, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(tokens)
    scores = torch.randn(3, tokens, generator=draw).to(dtype)
    assert functional.fused(scores.cuda()) is not None
    keep = max(1, tokens // 9)
    mask = torch.stack([torch.arange(tokens)] * 3) % 5 == 0
    count = int(mask[0].sum())
    group = torch.randint(7, (3, tokens), generator=draw)
    torch.cuda.set_sync_debug_mode("error")
    there, where, owner = (x.cuda(non_blocking=True) for x in (scores, mask, group))
    try:
        best, places = top_k(there, keep), true_places(where, count)
        means = group_means(there[..., None], owner, 8)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(best.cpu(), _top_k(scores, keep))
    assert torch.equal(places.cpu(), true_places(mask, count))
    torch.testing.assert_close(means.cpu(), _group_means(scores[..., None], group, 8), rtol=1e-2, atol=1e-2)
    there[1, 0] = torch.nan
    assert top_k(there, keep)[1].tolist() == [-tokens - 1] * keep
    assert torch.equal(top_k(there, keep)[2].cpu(), best[2].cpu())
