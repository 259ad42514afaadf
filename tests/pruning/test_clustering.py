"""The GPU kernel of clustering: compiled without a GPU, left out where it does not work."""

import pytest
import torch

from uniprune.pruning import clustering

triton = pytest.importorskip("triton", reason="Triton exists for Linux only")


@pytest.mark.end_to_end
@pytest.mark.parametrize("density", ["fp32", "fp64"])
def test_the_kernel_compiles_for_a_gpu(density: str) -> None:
    """Down to machine code of compute capability 9.0, in every size."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from uniprune.pruning import clustering_triton as kernels

    pointers = {"distance": "*fp32", "density": f"*{density}", "far": "*fp32", "nearest": "*fp32", "tokens": "i32"}
    for size in clustering.SIZES:
        constants = {"ORDERED": True, "SIZE": size}
        signature = pointers | dict.fromkeys(constants, "constexpr")
        source = ASTSource(fn=kernels._separations, signature=signature, constexprs=constants)
        assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]


def test_a_machine_without_a_working_triton_keeps_the_operations() -> None:
    if torch.cuda.is_available():
        pytest.skip("Triton works here")
    with pytest.warns(RuntimeWarning, match="clusters are formed on cpu operation by operation, slower but right"):
        assert not clustering._proven.__wrapped__(torch.device("cpu"), torch.float32)
    assert not clustering.fused(torch.eye(3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("tokens", [1, 77, 770, 1500, 4096])
def test_the_kernel_on_the_gpu(tokens: int) -> None:
    draw = torch.Generator().manual_seed(tokens)
    distance, density = (torch.rand(2, tokens, *more, generator=draw) for more in ((tokens,), ()))
    assert clustering.fused(distance.cuda())
    for values in (density, density.mul(9).round()):
        for ordered in (True, False):
            got = clustering.separations(distance.cuda(), values.double().cuda(), ordered)
            assert torch.equal(got.cpu(), clustering.separations(distance, values.double(), ordered))
