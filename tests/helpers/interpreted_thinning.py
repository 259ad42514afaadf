"""The GPU kernels that thin out rankings, interpreted on the CPU: run by tests/pruning/test_fused.py with
TRITON_INTERPRET=1."""

import pytest
import torch
from torch import Tensor

from uniprune.pruning import thinning, thinning_triton
from uniprune.pruning.functional import cosine_similarity
from uniprune.pruning.thinning import _drop_most_similar, disagreement


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpreting an operation takes up to a millisecond."""
    monkeypatch.setattr(thinning_triton, "LISTED", 4)
    monkeypatch.setattr(thinning_triton, "SIZES", {16: (4, 4), 64: (4, 4)})


def both(similarity: Tensor, ranked: Tensor, keep: int, step: int, room: int = 0) -> list[list[list[int]]]:
    """Return the picks of the kernels and of the loop."""
    loop = [_drop_most_similar(*one, keep, step).tolist() for one in zip(similarity, ranked, strict=True)]
    return [thinning_triton.drop_most_similar(similarity, ranked, keep, step, room).tolist(), loop]


def cloud(prompts: int, tokens: int, digits: int = 12) -> Tensor:
    """Return [P, N, N] similarities of clusters."""
    draw = torch.Generator().manual_seed(tokens)
    near = torch.randn(4, 24, generator=draw)[torch.arange(tokens) % 4]
    points = near + 0.4 * torch.randn(prompts, tokens, 24, generator=draw)
    return torch.stack([cosine_similarity(one.double()) for one in points]).round(decimals=digits)


@pytest.mark.parametrize(
    ("tokens", "candidates", "keep", "step"),
    [(2, 2, 1, 8), (3, 3, 1, 1), (12, 9, 8, 8), (17, 15, 6, 4)],
)
def test_picks_are_those_of_the_loop(tokens: int, candidates: int, keep: int, step: int) -> None:
    draw = torch.Generator().manual_seed(0)
    ranked = torch.stack([torch.randperm(tokens, generator=draw)[:candidates] for _ in range(2)])
    for digits in (12, 1):  # the latter makes ties
        ours, loops = both(cloud(2, tokens, digits), ranked, keep, step)
        assert ours == loops


def test_lists_that_name_nobody_who_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal ones, negative ones and zeros of both signs included."""
    monkeypatch.setattr(thinning_triton, "LEFT", 0.1)
    for similarity in (cloud(1, 14), cloud(1, 14).round() * -0.1):
        ours, loops = both(similarity, torch.arange(14)[None], 6, 3)
        assert ours == loops


def test_without_a_ranking_the_engine_is_told() -> None:
    ranked = torch.arange(10).repeat(2, 1)
    ranked[1] = -11
    ours = thinning_triton.drop_most_similar(cloud(2, 10), ranked, 4, 8)
    assert ours[0].tolist() == _drop_most_similar(cloud(2, 10)[0], ranked[0], 4, 8).tolist()
    assert ours[1].tolist() == [-11] * 4


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
def test_broken_numbers_never_point_outside() -> None:
    picks = thinning_triton.drop_most_similar(torch.full((1, 20, 20), torch.nan), torch.arange(20)[None], 5, 8)
    assert len(set(picks.flatten().tolist()) & set(range(20))) == 5


def test_the_check_before_use(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert disagreement(cpu, torch.float32, 16, 17) == ""
    monkeypatch.setattr(thinning, "_drop_most_similar", lambda similarity, ranked, keep, step: ranked[:keep])
    assert "other picks of distinct similarities" in disagreement(cpu, torch.float32, 16, 17)
