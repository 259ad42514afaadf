"""The GPU kernels of greedy selections: interpreted and compiled without a GPU, run where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from uniprune.pruning import greedy
from uniprune.pruning.functional import cosine_distance, cosine_similarity
from uniprune.pruning.greedy import dpp_map, farthest_points

pytestmark = pytest.mark.end_to_end

triton = pytest.importorskip("triton", reason="Triton exists for Linux only")
old = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7)
HELPERS = Path(__file__).parents[1] / "helpers"


@pytest.mark.skipif(old, reason="this Triton's interpreter cannot count loops with numpy 2.4 and newer")
def test_interpreted_kernels_do_what_torch_does() -> None:
    files = map(str, sorted(HELPERS.glob("interpreted_*.py")))
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(words, env=environment, cwd=HELPERS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
def test_kernels_compile_for_a_gpu(dtype: str) -> None:
    """Down to machine code of compute capability 9.0, in every size."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from uniprune.pruning import greedy_triton as fused

    numbers, whole = f"*{dtype}", dict.fromkeys(("tokens", "apart", "stride", "count"), "i32") | {"SIZE": "constexpr"}
    far = {"distance": numbers, "nearest": numbers, "picks": "*i64", "fresh": "i32", **whole}
    dpp = {"kernel": numbers, "gain": numbers, "floor": numbers, "factor": numbers, "picks": "*i64", **whole}
    dpp |= {"gain_left": numbers, "first": "i32", "stop": "i32", "block": "i32"}
    for size, rows in fused.TILES.items():
        for kernel, types, constants, warps in (
            (fused._farthest_points, far, {"SIZE": size}, fused.FARTHEST_WARPS),
            (fused._dpp_map, dpp | {"ROWS": "constexpr"}, {"SIZE": size, "ROWS": rows}, fused.DPP_WARPS),
        ):
            source = ASTSource(fn=kernel, signature=types, constexprs=constants)
            built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
            assert built.asm["cubin"]


def test_a_machine_without_a_working_triton_keeps_the_loops() -> None:
    """There is no driver here, so launching fails: told once, and no kernel is used."""
    if torch.cuda.is_available():
        pytest.skip("Triton works here")
    with pytest.warns(RuntimeWarning, match="pick by pick on cpu, slower but right"):
        assert greedy._proven.__wrapped__(torch.device("cpu"), torch.float32) is None


def test_a_triton_that_cannot_be_imported_keeps_the_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "uniprune.pruning.greedy_triton", raising=False)
    monkeypatch.delattr("uniprune.pruning.greedy_triton", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.warns(RuntimeWarning, match="triton"):
        assert greedy._proven.__wrapped__(torch.device("cpu"), torch.float32) is None


def test_matrices_on_the_cpu_are_never_handed_to_kernels() -> None:
    assert greedy.fused(torch.eye(3)) is None


def cloud(tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(8, 512, generator=generator)[torch.arange(tokens) % 8]
    return centres + 0.5 * torch.randn(tokens, 512, generator=generator)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("tokens", [1, 16, 256, 576, 1280, 2880, 5000])
def test_kernels_on_the_gpu(tokens: int) -> None:
    x, keep = cloud(tokens), max(1, min(tokens // 9, 400))  # below the rank: noise is picked in any order
    distance, kernel = cosine_distance(x), cosine_similarity(x)
    on_gpu = [matrix.cuda() for matrix in (distance, kernel)]
    assert greedy.fused(on_gpu[0]) is not None
    torch.cuda.set_sync_debug_mode("error")
    try:
        far, map_ = farthest_points(on_gpu[0], keep), dpp_map(on_gpu[1], keep)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert far.cpu().tolist() == farthest_points(distance, keep).tolist()
    assert map_.cpu().tolist() == dpp_map(kernel, keep).tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("tokens", [16, 576, 1280])
def test_prompts_are_decided_at_once_on_the_gpu(tokens: int) -> None:
    """From the same matrices as on the CPU; one launch for all prompts, seeded or not."""
    keep, prompts = tokens // 9 + 1, 8
    every = [cloud(tokens)[torch.randperm(tokens, generator=torch.Generator().manual_seed(i))] for i in range(prompts)]
    distance = torch.stack([cosine_distance(x) for x in every])
    kernel = torch.stack([cosine_similarity(x) for x in every])
    seeds = torch.arange(prompts * 2).view(prompts, 2) % tokens
    far, map_ = farthest_points(distance.cuda(), keep), dpp_map(kernel.cuda(), keep)
    assert far.cpu().tolist() == farthest_points(distance, keep).tolist()
    assert map_.cpu().tolist() == dpp_map(kernel, keep).tolist()
    seeded = farthest_points(distance.cuda(), keep, seeds.cuda())
    assert seeded.cpu().tolist() == farthest_points(distance, keep, seeds).tolist()
