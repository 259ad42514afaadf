"""The GPU kernels of shared rules, interpreted on the CPU: run by tests/pruning/test_fused.py, TRITON_INTERPRET=1."""

import pytest
import torch

from uniprune.pruning import rules_triton
from uniprune.pruning.functional import _group_means, _top_k


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpreting an operation takes up to a millisecond."""
    monkeypatch.setattr(rules_triton, "OWN", 16)
    monkeypatch.setattr(rules_triton, "OTHERS", 32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("tokens", [1, 7, 50])
def test_ranks(tokens: int, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(2, tokens, generator=draw).to(dtype)
    scores[1] = scores[1].round()
    if tokens > 2:
        scores[0, :2], scores[1, 1] = -torch.inf, torch.inf
    for keep in (0, 1, tokens):
        assert torch.equal(rules_triton.ranked(scores, keep), _top_k(scores, keep))
    assert torch.equal(rules_triton.ranked(scores[0], 1), _top_k(scores[0], 1))


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
def test_nan_has_no_rank() -> None:
    scores = torch.rand(2, 40)
    scores[1, 39] = torch.nan
    ranks = rules_triton.ranked(scores, 9)
    assert ranks.tolist() == [_top_k(scores[0], 9).tolist(), [-41] * 9]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_means(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(2, 37, 300, generator=draw).to(dtype)
    group = torch.randint(5, (2, 37), generator=draw)
    want = _group_means(features, group, 6)
    torch.testing.assert_close(rules_triton.group_means(features, group, 6), want)
    torch.testing.assert_close(rules_triton.group_means(features[1], group[1], 6), want[1])


def test_the_check_before_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_triton, "DTYPES", (torch.float32,))
    monkeypatch.setattr(rules_triton, "OWN", 256)
    monkeypatch.setattr(rules_triton, "OTHERS", 256)
    cpu = torch.device("cpu")
    assert rules_triton.disagreement(_top_k, _group_means, cpu) == ""
    other = rules_triton.disagreement(lambda scores, keep: torch.arange(keep), _group_means, cpu)
    assert other == "other ranks of scores in torch.float32"
    other = rules_triton.disagreement(_top_k, lambda *given: 1.01 * _group_means(*given), cpu)
    assert other == "other means of groups"
