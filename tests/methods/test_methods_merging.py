"""Merging methods for video: their exact reading, runs of frames, chains of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.helpers.golden_cases import Methods
from tests.helpers.views import Tower, decide, make_view
from uniprune.pruning.base import Selection
from uniprune.pruning.view import View


def video(x: Tensor, attention: Tensor | None = None) -> View:
    """A view of frames [T, F, D], equally attended if nothing else is given."""
    attention = torch.ones(x.shape[:2]) if attention is None else attention
    return make_view(x.flatten(0, 1), grids=[(x.shape[0], 1, x.shape[1])], vision=Tower(received=attention.flatten()))


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def per_frame(answer: Selection, steps: int, size: int) -> list[int]:
    return (answer.indices // size).bincount(minlength=steps).tolist()


def test_fastvid_hands_on_what_a_frame_cannot_hold(methods: Methods) -> None:
    """Six frames alike are one run, whose last frame holds its ten tokens of thirty; the release keeps no others."""
    x = 4 + drawn(6, 10, 8) / 9
    attention = torch.arange(60.0).view(6, 10)
    exact = methods("fastvid")(ratio=0.5, segments=1)
    answer = decide(exact, video(x, attention), 30)
    assert per_frame(answer, 6, 10) == [0, 0, 0, 10, 10, 10]
    released = methods("fastvid")(ratio=0.5, segments=1, counts="release").select(video(x, attention), 60)
    assert per_frame(released, 6, 10) == [0, 0, 0, 0, 0, 10]


def test_fastvid_spreads_a_segment_over_runs(methods: Methods) -> None:
    """Six runs of one frame: of 41 tokens 16 take others in, 8 in the last and 8 in the fourth to last frame."""
    x = drawn(6, 20, 4)
    method = methods("fastvid")(ratio=41 / 120, segments=1, threshold=-1.0, inner_threshold=1.0)
    answer = decide(method, video(x), 41)
    assert per_frame(answer, 6, 20) == [5, 4 + 8, 4, 4, 4, 4 + 8]
    assert answer.tokens is not None
    changed = (answer.tokens != x.flatten(0, 1)[answer.indices]).any(1)
    assert {int(index) // 20 for index in answer.indices[changed]} == {1, 5}
    one = methods("fastvid")(ratio=3 / 120, segments=1, threshold=-1.0, inner_threshold=1.0)
    assert per_frame(decide(one, video(x), 3), 6, 20) == [1, 1, 0, 0, 0, 1]


def test_a_chain_of_merged_tokens_is_its_mean(methods: Methods) -> None:
    """The first token of three frames hardly changes: a chain of two links; as released, its sum over two."""
    x = torch.eye(4)[torch.tensor([[0, 1], [0, 2], [0, 3]])] + torch.tensor([0.0, 0.1, 0.2])[:, None, None] / 9
    for counts, share in (("exact", 3), ("release", 2)):
        fields = {"segments": 1, "segment_threshold": -1.0, "alpha": 0.0, "expansion": 1.0}
        method = methods("flashvid")(ratio=0.5, counts=counts, **fields)
        answer = method.select(video(x), 4)
        assert sorted(answer.indices.tolist()) == [0, 1, 3, 5]
        want = torch.cat((x[:, 0].sum(0, keepdim=True) / share, x[:, 1]))
        torch.testing.assert_close(answer.tokens[answer.indices.argsort()], want)


def test_flashvid_picks_by_attention_and_distance(methods: Methods) -> None:
    """The two tokens apart from the rest; of three alike the most attended."""
    x = torch.tensor([[[1.0, 0], [1, 0.01], [1, 0.02], [0, 1]]])
    attention = torch.tensor([[1.0, 5, 1, 1]])
    answer = decide(methods("flashvid")(ratio=0.5, alpha=1.0), video(x, attention), 2)
    assert answer.indices.tolist() == [1, 3]


def test_noise_of_the_release_is_the_same_for_every_seed(methods: Methods) -> None:
    """Of four equal tokens each, the exact reading takes the first, the release any, always the same."""
    view, state = video(drawn(8, 4).repeat_interleave(4, 0)[None]), torch.random.get_rng_state()
    for name, fields in (("fastvid", {"context": 1.0}), ("flashvid", {"alpha": 0.0, "expansion": 1.0})):
        exact, released = (
            [
                methods(name)(ratio=0.25, seed=seed, counts=counts, **fields).select(view, 8).indices.sort().values
                for seed in (0, 1)
            ]
            for counts in ("exact", "release")
        )
        assert torch.equal(*released)
        assert released[0].tolist() != list(range(0, 32, 4))
        assert all(one.tolist() == list(range(0, 32, 4)) for one in exact)
    assert torch.equal(state, torch.random.get_rng_state())


def test_no_more_is_merged_than_the_budget_allows(methods: Methods) -> None:
    """Of three tokens alike in both frames only the most alike is merged for a budget of four; two are clustered."""
    first, turned = torch.eye(3), torch.eye(3).roll(1, 1)
    x = torch.stack((first, first + torch.tensor([0.1, 0.2, 0.3])[:, None] * turned))
    method = methods("flashvid")(ratio=4 / 6, segments=1, segment_threshold=-1.0, alpha=0.0)
    answer = decide(method, video(x), 4)
    assert per_frame(answer, 2, 3) == [2, 2]
    assert answer.indices[2:].tolist() == [4, 5]
