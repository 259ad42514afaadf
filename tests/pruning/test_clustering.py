"""The GPU kernel of clustering: compiled without a GPU, left out where it does not work."""

from typing import Any

import pytest
import torch
from torch import Tensor

from uniprune.pruning import clustering
from uniprune.pruning.functional import products

triton = pytest.importorskip("triton", reason="Triton exists for Linux only")


@pytest.mark.end_to_end
def test_kernels_compile_for_a_gpu() -> None:
    """Down to machine code of compute capability 9.0, in every size."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from uniprune.pruning import clustering_triton as kernels

    def build(kernel: Any, signature: dict[str, str], constants: dict[str, int]) -> None:
        source = ASTSource(kernel, signature | dict.fromkeys(constants, "constexpr"), constants)
        assert triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8}).asm["cubin"]

    for size, kind in zip(clustering.SIZES, ("*fp32", "*fp64"), strict=True):
        numbers = {"products": kind, "distance": kind, "most": kind, "density": "*fp64"}
        whole = {"tokens": "i32", "width": "i32", "clusters": "i32"}
        build(kernels._densities, numbers | whole, {"SIZE": size})
        scores = {"distance": kind, "most": kind, "density": "*fp64", "score": "*fp64", "tokens": "i32"}
        build(kernels._scores, scores, {"SIZE": size})
    owners = {"distance": "*fp32", "centres": "*i64", "owner": "*i64", "tokens": "i32", "clusters": "i32"}
    build(kernels._owners, owners, {"TOKENS": kernels.TOKENS})


def test_a_machine_without_a_working_triton_keeps_the_operations() -> None:
    if torch.cuda.is_available():
        pytest.skip("Triton works here")
    with pytest.warns(RuntimeWarning, match="clusters are formed on cpu operation by operation, slower but right"):
        assert not clustering._proven.__wrapped__(torch.device("cpu"), torch.float32)
    assert not clustering.fused(torch.eye(3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("tokens", [1, 77, 770, 1500, 4096])
def test_kernels_on_the_gpu(tokens: int) -> None:
    draw = torch.Generator().manual_seed(tokens)
    x = torch.randn(2, tokens, 8, generator=draw).mul(3).round()  # whole numbers: products and means are exact
    x = x - x.mean(-2, keepdim=True).round()
    clusters = tokens // 30 + 1
    assert clustering.fused(x.cuda())
    want = clustering._density_peaks(x, clusters, None)
    found = clustering_triton_of(x.cuda(), clusters)
    assert all(torch.equal(one.cpu(), other) for one, other in zip(found, want, strict=True))


def clustering_triton_of(x: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Return what the kernels find for centred tokens."""
    from uniprune.pruning import clustering_triton as kernels

    return kernels.density_peaks(products(x, x), x.shape[-1], clusters)
