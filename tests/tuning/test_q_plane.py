"""Q-Tuning as a pure decision: plane, quadrants, supplement, exact counts, token scores; against plain Python."""

from __future__ import annotations

import math
import random

import pytest
import torch

from uniprune.errors import PruningError, UserError
from uniprune.methods.tuning.samples.q import QuadrantSamples
from uniprune.methods.tuning.tokens.q import QuadrantTokens
from uniprune.pruning.budget import floor_count
from uniprune.tuning.plane import (
    CALIBRATION,
    KNOWN,
    MISCONCEPTION,
    NOISE,
    Bisection,
    bisect,
    partition,
    rank,
    supplement,
)
from uniprune.tuning.pruning import Candidate, Pair, choose_samples, choose_tokens
from uniprune.tuning.strategy import SAMPLES, TOKENS, SampleView, TokenView, smoothed
from uniprune.utils.hashing import seeded_generator

RATIOS = (0.05, 0.125, 0.25, 0.4, 0.5, 0.75, 1.0)


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random batches of every size, some with ties, constants and huge values."""
    made = []
    for seed in range(count):
        rng = random.Random(seed)
        size = rng.randint(1, 40)
        kind = seed % 4
        draws = [
            [(rng.random(), rng.randint(0, 2), 1.0, 10 ** rng.uniform(0, 300))[kind] for _ in range(size)]
            for _ in range(2)
        ]
        values = torch.tensor(draws, dtype=torch.float64)
        made.append((1 + values[0], values[1]))
    return made


def test_quantile_is_the_smallest_value_that_covers_the_share() -> None:
    for values, _ in batches(40):
        for share in (0.0, 0.1, 0.25, 1 / 3, 0.49, 0.5, 0.51, 0.9, 1.0):
            got = float(values.sort().values[rank(share, len(values))])
            covered = [v for v in values.tolist() if (values <= v).double().mean() >= share - 1e-12]
            assert got == min(covered)


def test_corners_are_the_papers() -> None:
    wrong = torch.tensor([9.0, 9.0, 1.0, 1.0])
    unsure = torch.tensor([3.0, 0.5, 0.5, 3.0])
    assert partition(wrong, unsure, 0.49).quadrants.tolist() == [NOISE, MISCONCEPTION, KNOWN, CALIBRATION]
    # A narrow share leaves the middle of an axis in no quadrant.
    ramp = torch.arange(9.0)
    assert partition(ramp, ramp.flip(0), 0.2).quadrants.tolist() == [4, 4, 0, 0, 0, 0, 0, 2, 2]


def plain_bisect(
    ppl: list[float], ent: list[float], ratio: float, kept: set[int], steps: int, relaxes_at_equality: bool = False
) -> list[tuple[float, list[int]]]:
    """Share and plane of every step of algorithm 1, lines 5-16, in plain Python.

    Equation 6 relaxes where the ratio is met exactly, too.
    """

    def q(values: list[float], share: float) -> float:
        return sorted(values)[max(1, math.ceil(share * len(values) - 1e-9)) - 1]

    a_low, a_high, b_low, b_high = 0.0, 0.49, 0.0, 0.49
    planes: list[tuple[float, list[int]]] = []
    for _ in range(steps):
        a, b = (a_low + a_high) / 2, (b_low + b_high) / 2
        ppl_low, ppl_high, ent_low, ent_high = q(ppl, a), q(ppl, 1 - a), q(ent, b), q(ent, 1 - b)
        quadrants = []
        for p, e in zip(ppl, ent, strict=True):
            side = "l" if p <= ppl_low else "h" if p >= ppl_high else "m"
            side += "l" if e <= ent_low else "h" if e >= ent_high else "m"
            quadrants.append({"hh": 1, "hl": 2, "ll": 3, "lh": 4}.get(side, 0))
        planes.append((a, quadrants))
        held = sum(x in kept for x in quadrants) / len(ppl)
        if held < ratio or (relaxes_at_equality and held == ratio):
            a_low, b_low = a, b
        else:
            a_high, b_high = a, b
    return planes


@pytest.mark.parametrize("returns", ["algorithm 1", "equation 6"])
@pytest.mark.parametrize("kept", [{2, 4}, {1, 2, 4}, {2, 3, 4}])
def test_bisection_follows_the_paper_to_the_letter_where_it_is_asked_to(kept: set[int], returns: Bisection) -> None:
    for ppl, ent in batches(40):
        for ratio in RATIOS:
            plane = bisect(ppl, ent, ratio, kept, returns=returns)
            planes = plain_bisect(ppl.tolist(), ent.tolist(), ratio, kept, 10, returns == "equation 6")
            assert (plane.share, plane.quadrants.tolist()) == planes[-1]


@pytest.mark.parametrize("kept", [{2, 4}, {1, 2, 4}, {2, 3, 4}])
def test_the_tightest_plane_that_holds_enough_is_returned_else_the_widest(kept: set[int]) -> None:
    for ppl, ent in batches(40):
        for ratio in RATIOS:
            planes = plain_bisect(ppl.tolist(), ent.tolist(), ratio, kept, 10)
            enough = [one for one in planes if sum(q in kept for q in one[1]) / len(ppl) >= ratio]
            plane = bisect(ppl, ent, ratio, kept)
            assert (plane.share, plane.quadrants.tolist()) == (min(enough) if enough else max(planes))


def test_samples_come_from_the_kept_quadrants_whenever_these_hold_enough_at_some_share() -> None:
    """At the paper's setting: one of eight. By algorithm 1 to the letter, more than a third of the choices do not."""
    outside = {"tightest": 0, "algorithm 1": 0}
    asked = 0
    for seed in range(300):
        torch.manual_seed(seed)
        ppl, ent = torch.randn(2, 8, dtype=torch.float64).exp()
        corners = torch.tensor([MISCONCEPTION, CALIBRATION])
        shares = [i / 16 for i in range(1, 8)] + [0.4895]
        wide_enough = [torch.isin(partition(ppl, ent, share).quadrants, corners).any() for share in shares]
        if not any(wide_enough):
            continue
        asked += 1
        for returns in outside:
            view = SampleView(torch.ones(8), 0.125, torch.stack((ppl, ent)), seeded_generator(0))
            picks = QuadrantSamples(bisection=returns).select(view, 1)  # type: ignore[arg-type]
            assert picks.quadrants is not None
            outside[returns] += int(picks.quadrants[picks.indices]) not in (MISCONCEPTION, CALIBRATION)
    assert asked > 250
    assert outside["tightest"] == 0
    assert outside["algorithm 1"] > asked / 3


def test_q_keeps_the_exact_count_and_prefers_its_quadrants() -> None:
    for ppl, ent in batches(80):
        for ratio in RATIOS:
            keep = floor_count(len(ppl), ratio)
            view = SampleView(torch.ones(len(ppl)), ratio, torch.stack((ppl, ent)), seeded_generator(0))
            picks = QuadrantSamples().select(view, keep)
            chosen = picks.indices.tolist()
            assert len(set(chosen)) == keep
            assert picks.quadrants is not None
            kept_quadrants = [i for i, q in enumerate(picks.quadrants.tolist()) if q in (2, 4)]
            scores = supplement(ppl, ent)
            if len(kept_quadrants) <= keep:
                assert set(kept_quadrants) <= set(chosen)
                added, left = set(chosen) - set(kept_quadrants), set(range(len(ppl))) - set(chosen)
            else:
                assert set(chosen) <= set(kept_quadrants)
                added, left = set(chosen), set(kept_quadrants) - set(chosen)
            assert all(scores[i] >= scores[j] for i in added for j in left)


def test_supplement_is_the_distance_of_the_scaled_axes() -> None:
    ppl, ent = torch.tensor([2.0, 4.0, 6.0]), torch.tensor([0.0, 1.0, 0.25])
    assert supplement(ppl, ent).tolist() == [0.0, 0.5, 0.75]
    assert supplement(torch.ones(3), ent).tolist() == [0.0, 1.0, 0.25]


@pytest.mark.parametrize("size", [64, 256])
def test_q_meets_the_ratio_without_supplement_on_independent_axes(size: int) -> None:
    torch.manual_seed(0)
    plane = bisect(torch.rand(size).double(), torch.rand(size).double(), 0.25)
    assert abs(torch.isin(plane.quadrants, torch.tensor([2, 4])).double().mean() - 0.25) <= 4 / size


def test_token_score_is_equation_7() -> None:
    ppl = torch.tensor([1.0, 10.0, 2.0, 4.0])
    expected = [0.5 * 1 + 0.5 * (1 + 10), 0.5 * 10 + 0.5 * (1 + 2), 0.5 * 2 + 0.5 * (10 + 4), 0.5 * 4 + 0.5 * (2 + 4)]
    assert smoothed(ppl, 0.5).tolist() == expected
    assert torch.equal(smoothed(ppl, 0.0), ppl)


@pytest.mark.parametrize("keep", ["low", "high"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_q_tokens_keep_the_lowest_or_highest_scores(keep: str, share: float) -> None:
    for seed in range(60):
        torch.manual_seed(seed)
        count = int(torch.randint(2, 30, ()))
        nll = torch.rand(count) * 8
        strategy = QuadrantTokens(keep=keep, smoothing=share)  # type: ignore[arg-type]
        pair = Pair(QuadrantSamples(), strategy, 1.0, 0.5)
        kept = choose_tokens(pair, count, {"nll": nll}, seeded_generator(0))
        assert len(kept) == floor_count(count, 0.5)
        assert kept == sorted(kept)
        ppl = nll.double().exp().tolist()
        scores = [(1 - share) * ppl[i] + share * (ppl[max(0, i - 1)] + ppl[min(count - 1, i + 1)])
                  for i in range(count)]  # fmt: skip
        sign = 1 if keep == "high" else -1
        worst, best = min(sign * scores[i] for i in kept), max(sign * scores[i] for i in range(count) if i not in kept)
        assert worst >= best - 1e-9


def test_only_misconceptions_lose_tokens_and_the_ablation_is_a_setting() -> None:
    for prune, losing in (((2,), {2}), ((2, 4), {2, 4}), ((), set())):
        strategy = QuadrantTokens(prune=prune)
        assert {q for q in (None, 0, 1, 2, 3, 4) if strategy.applies_to(q)} == losing
    assert not any(TOKENS.get("none")().applies_to(q) for q in (None, 0, 1, 2, 3, 4))


def candidates(size: int, seed: int) -> list[Candidate]:
    torch.manual_seed(seed)
    made = []
    for index in range(size):
        answer = int(torch.randint(1, 12, ()))
        made.append(Candidate(index, answer + 5, answer, torch.rand(answer) * 4, torch.rand(answer) * 2))
    return made


@pytest.mark.parametrize("name", SAMPLES.names())
def test_every_sample_strategy_keeps_the_exact_count_and_repeats_itself(name: str) -> None:
    for size in (1, 2, 7, 8, 33):
        for ratio in RATIOS:
            pair = Pair(SAMPLES.get(name)(), QuadrantTokens(), ratio, 0.5)
            runs = [choose_samples(pair, candidates(size, size), seeded_generator(size, ratio)) for _ in range(2)]
            chosen = [[c.position for c in run.chosen] for run in runs]
            assert chosen[0] == chosen[1] == sorted(set(chosen[0]))
            assert len(chosen[0]) == (size if name == "full" else floor_count(size, ratio))


def measured(count: int) -> dict[str, torch.Tensor]:
    attention = torch.rand(count, count).tril()
    return {"nll": torch.rand(count), "reference": torch.rand(count), "attention": attention,
            "states": torch.randn(count, 4)}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in TOKENS.names() if name != "none"])
def test_every_token_strategy_keeps_the_exact_count_and_repeats_itself(name: str) -> None:
    for count in (1, 2, 3, 8, 31):
        torch.manual_seed(count)
        table = measured(count)
        for ratio, keep in ((0.5, max(1, count // 2)), (1.0, count)):
            pair = Pair(QuadrantSamples(), TOKENS.get(name)(), 1.0, ratio)
            kept = [choose_tokens(pair, count, table, seeded_generator(count)) for _ in range(2)]
            assert kept[0] == kept[1] == sorted(set(kept[0]))
            assert len(kept[0]) == keep


def test_infobatch_weights_stand_for_what_was_dropped() -> None:
    nll = [0.1, 0.1, 0.1, 0.1, 3.0, 3.0]
    batch = [Candidate(i, 5, 2, torch.full((2,), x), torch.ones(2)) for i, x in enumerate(nll)]
    chosen = choose_samples(
        Pair(SAMPLES.get("infobatch")(), QuadrantTokens(), 0.5, 1.0), batch, seeded_generator(1)
    ).chosen
    assert [c.position for c in chosen][1:] == [4, 5]
    assert [c.weight for c in chosen] == [4.0, 1.0, 1.0]


def test_rho_keeps_excess_loss_and_fastv_the_last_row() -> None:
    scores = {"nll": torch.tensor([3.0, 2.0, 1.0]), "reference": torch.tensor([3.0, 0.0, 0.5]),
              "attention": torch.tensor([[0.1, 0.2, 0.7]])}  # fmt: skip
    view = TokenView(3, seeded_generator(0), scores)
    assert TOKENS.get("rho-1")().select(view, 1).tolist() == [1]
    assert TOKENS.get("fastv")().select(view, 1).tolist() == [2]


def test_contracts_are_checked() -> None:
    with pytest.raises(PruningError, match="does not declare"):
        SAMPLES.get("entropy")().select(SampleView(torch.ones(3), 0.5, None, seeded_generator(0)), 1)
    with pytest.raises(UserError, match=r"drop \(1, 2, 3, 4\) must leave one of the quadrants"):
        QuadrantSamples(drop=(1, 2, 3, 4))
    with pytest.raises(UserError, match="iterations 0 must be a whole number of at least 1"):
        QuadrantSamples(iterations=0)
    with pytest.raises(UserError, match=r"smoothing 2.0 is outside \[0, 1\]"):
        QuadrantTokens(smoothing=2.0)
    with pytest.raises(UserError, match=r"prune \(5,\) must be"):
        QuadrantTokens(prune=(5,))  # type: ignore[arg-type]

    class Wrong(QuadrantSamples):
        def select(self, view: SampleView, keep: int) -> torch.Tensor:  # type: ignore[override]
            return torch.zeros(keep, dtype=torch.long)

    with pytest.raises(PruningError, match="Wrong must choose 4 different"):
        choose_samples(Pair(Wrong(), QuadrantTokens(), 0.5, 1.0), candidates(8, 0), seeded_generator(0))
