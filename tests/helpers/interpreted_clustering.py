"""The GPU kernel of clustering, interpreted on the CPU: run by tests/pruning/test_fused.py with TRITON_INTERPRET=1."""

import pytest
import torch

from uniprune.pruning import clustering, clustering_triton
from uniprune.pruning.clustering import _separations, disagreement


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_separations(ordered: bool, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    distance = torch.rand(2, 19, 19, generator=draw)
    for density in (torch.rand(2, 19, generator=draw), torch.rand(2, 19, generator=draw).round(), torch.zeros(2, 19)):
        want = _separations(distance, density.to(dtype), ordered)
        assert torch.equal(clustering_triton.separations(distance, density.to(dtype), ordered), want)


def test_the_check_before_use(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(clustering, "SIZES", (32,))
    assert disagreement(cpu, torch.float32) == ""
    monkeypatch.setattr(clustering, "_separations", lambda distance, *rest: distance.amin(-1))
    assert "finds other distances" in disagreement(cpu, torch.float32)
