"""The GPU kernels of clustering, interpreted on the CPU: run by tests/pruning/test_fused.py with TRITON_INTERPRET=1."""

import pytest
import torch

from uniprune.pruning import clustering, clustering_triton
from uniprune.pruning.clustering import _density_peaks, disagreement
from uniprune.pruning.functional import products


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpreting an operation takes up to a millisecond."""
    for module in (clustering, clustering_triton):
        monkeypatch.setattr(module, "SIZES", (8, 16))


@pytest.mark.parametrize(("tokens", "clusters", "digits"), [(1, 1, 0), (8, 3, 0), (9, 9, 0), (9, 2, 6)])
def test_clusters(tokens: int, clusters: int, digits: int) -> None:
    draw = torch.Generator().manual_seed(tokens)
    x = torch.randn(2, tokens, 6, generator=draw).mul(2).round(decimals=digits)
    x = x if digits else x.clamp(-2, 2)
    want = _density_peaks(x, clusters, None)
    got = clustering_triton.density_peaks(products(x, x), 6, clusters)
    assert all(map(torch.equal, got, want))


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
def test_broken_numbers_never_point_outside() -> None:
    centres, owner = clustering_triton.density_peaks(torch.full((1, 5, 5), torch.nan), 6, 2)
    assert centres.tolist() == [[-6, -6]]
    assert owner.min() >= 0
    assert owner.max() < 2


def test_the_check_before_use(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for module in (clustering, clustering_triton):
        monkeypatch.setattr(module, "SIZES", (8,))
    assert disagreement(cpu, torch.float32) == ""
    monkeypatch.setattr(clustering, "_density_peaks", lambda x, k, noise: _density_peaks(x.flip(-2), k, noise))
    assert "form other clusters" in disagreement(cpu, torch.float32)
