"""The GPU kernels of a tower's attention: compiled without a GPU, run where there is one."""

import pytest
import torch
from torch import Tensor

from uniprune.engine import tower_attention
from uniprune.engine.tower_attention import _exchanged, _received, exchanged, received

pytestmark = pytest.mark.end_to_end

triton = pytest.importorskip("triton", reason="Triton exists for Linux only")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(("numbers", "size"), [("bf16", 2), ("fp32", 4)])
def test_kernels_compile_for_a_gpu(numbers: str, size: int) -> None:
    """Down to machine code of compute capability 9.0."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from uniprune.engine import tower_attention_triton as kernels

    own, others, warps = kernels.TILES[size]
    heads = {"query": f"*{numbers}", "key": f"*{numbers}", "tiles": "*i32", "logs": "*fp32"}
    whole = ("q_batch", "q_head", "q_row", "k_batch", "k_head", "k_row", "heads", "length", "width", "skip")
    rest = dict.fromkeys(whole, "i32") | {"scale": "fp32"} | dict.fromkeys(("WIDTH", "OWN", "OTHERS"), "constexpr")
    for kernel, sums in ((kernels._rows, "emitted"), (kernels._columns, "received")):
        constants = {"WIDTH": 128, "OWN": own, "OTHERS": others}
        source = ASTSource(fn=kernel, signature=heads | {sums: "*fp32"} | rest, constexprs=constants)
        built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
        assert built.asm["cubin"]


def test_a_machine_without_a_working_triton_keeps_the_blocks() -> None:
    if torch.cuda.is_available():
        pytest.skip("Triton works here")
    with pytest.warns(RuntimeWarning, match="attention received by patches is computed on cpu block by block, slower"):
        assert not tower_attention._proven.__wrapped__(torch.device("cpu"), torch.float32, 64)


def test_heads_on_the_cpu_are_never_handed_to_kernels() -> None:
    assert not tower_attention.fused(torch.ones(1, 2, 3, 64))


def heads(length: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return queries and keys [1, 16, length, width] on the GPU, heads side by side in memory."""
    draw = torch.Generator().manual_seed(width)
    both = torch.randn(2, 1, length, 16, width, generator=draw).to("cuda", dtype).transpose(2, 3)
    return both[0], both[1]


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize(
    ("width", "dtype"),
    [(64, torch.bfloat16), (72, torch.float16), (80, torch.bfloat16), (88, torch.float32), (128, torch.bfloat16)],
)
def test_kernels_on_the_gpu(width: int, dtype: torch.dtype) -> None:
    """Equal to float64, the same in every call, no wait, no row stored."""
    query, key = heads(1500, width, dtype)
    assert tower_attention.fused(query)
    for spans in ([(0, 1500)], [(start, min(start + 64, 1500)) for start in range(0, 1500, 64)]):
        for skip in (0, 1):
            want = _exchanged(query.double(), key.double(), width**-0.5, spans, skip)
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            torch.cuda.set_sync_debug_mode("error")
            try:
                got = exchanged(query, key, width**-0.5, spans, skip)
                again = exchanged(query, key, width**-0.5, spans, skip)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            torch.testing.assert_close(got, want, rtol=2e-3, atol=1e-7)
            assert torch.equal(got, again)
            assert torch.cuda.max_memory_allocated() - before < 16 * 1500 * 1500  # bytes: a quarter of the rows
        want = _received(query.double(), key.double(), width**-0.5, spans)
        torch.testing.assert_close(received(query, key, width**-0.5, spans), want, rtol=2e-3, atol=1e-7)


@pytest.mark.gpu
@gpu
def test_float64_is_left_to_the_blocks() -> None:
    query, key = heads(300, 80, torch.float64)
    assert not tower_attention.fused(query)
    assert received(query, key, 0.1, [(0, 300)]).shape == (1, 300)
