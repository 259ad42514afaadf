"""Methods are ranked and tested among equal measured budgets, whatever their nominal ratio."""

from __future__ import annotations

import csv
import io
import itertools
from random import Random

import pytest

from tests.helpers.records import dataset, run, tokens
from uniprune.results.budgets import agree, budget_groups, budget_notes, equal_budgets, most, visual_tokens, windows
from uniprune.results.comparison import RunComparison, SeedGroup
from uniprune.results.leaderboard import leaderboard
from uniprune.results.records import RunRecord

HALF, FEW = [1.0, 0.0] * 10, [1.0, 0.0, 0.0, 0.0] * 5


def spent(method: str, average: float | None, credits: list[float] = HALF, **fields: float) -> RunRecord:
    return run(method, {"x": dataset(credits, ledger=None if average is None else tokens(average))}, **fields)  # type: ignore[arg-type]


def parts(*averages: float | None) -> list[list[float | None]]:
    comparison = RunComparison([spent(f"m{n}", average) for n, average in enumerate(averages)])
    return [[visual_tokens(group) for group in part.members] for part in equal_budgets(comparison.groups)]


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (16.0, 16.0, True),
        (16.0, 17.0, True),
        (16.0, 17.01, False),
        (16.0, 58.7, False),
        (98.0, 100.0, True),
        (97.9, 100.0, False),
        (576.0, 587.7, True),
        (0.0, 0.9, True),
        (None, None, False),
        (None, 0.0, False),
    ],
)
def test_budgets_agree_within_a_token_or_two_percent_of_the_larger(
    one: float | None, other: float | None, equal: bool
) -> None:
    assert agree(one, other) is agree(other, one) is equal


@pytest.mark.parametrize(
    ("averages", "expected"),
    [
        ((16.0, 58.7, 16.0), [[16.0, 16.0], [58.7]]),
        ((16.0, 16.9, 17.8), [[16.0, 16.9], [17.8]]),  # no chain
        ((17.8, 16.9, 16.0), [[16.9, 16.0], [17.8]]),  # nor by the order
        ((16.0, 16.9, 17.0, 17.8), [[16.0, 16.9, 17.0], [17.8]]),
        ((15.0, 16.5, 17.0, 17.4), [[16.5, 17.0, 17.4], [15.0]]),  # the most common first
        ((100.0, None, 101.5, None, 103.2), [[100.0, 101.5], [103.2], [None], [None]]),
        ((), []),
    ],
)
def test_parts_of_equal_budget_do_not_chain(averages: tuple[float, ...], expected: list[list[float]]) -> None:
    found = parts(*averages)
    assert found == expected
    assert all(agree(one, other) or one is other is None for part in found for one in part for other in part)


@pytest.mark.parametrize("seed", range(200))
def test_parts_follow_from_the_budgets_alone(seed: int) -> None:
    """All of a part agree, equal budgets are together, no larger part was possible, and no order matters."""
    random = Random(seed)
    widest = random.choice([3, 20, 90, 600])
    budgets = [round(random.uniform(0, widest), random.choice([0, 1])) for _ in range(random.randrange(13))]
    found = [[budgets[i] for i in part] for part in windows(budgets, most)]
    assert sorted(itertools.chain(*found)) == sorted(budgets)
    for n, part in enumerate(found):
        assert max(part) <= most(min(part))
        assert all(agree(one, other) for one, other in itertools.product(part, part))
        rest = list(itertools.chain(*found[n:]))
        assert len(part) == max(sum(start <= other <= most(start) for other in rest) for start in rest)
        assert not set(part) & set(itertools.chain(*found[n + 1 :]))
    shuffled = random.sample(budgets, len(budgets))
    assert [sorted(shuffled[i] for i in part) for part in windows(shuffled, most)] == [sorted(part) for part in found]


def test_a_budget_is_the_mean_over_rows_of_all_benchmarks_and_seeds() -> None:
    x, y = dataset([1.0] * 30, ledger=tokens(10)), dataset([1.0] * 10, ledger=tokens(30))
    other = dataset([1.0] * 30, ledger=tokens(20))
    [group] = RunComparison([run("m", {"x": x, "y": y}), run("m", {"x": other, "y": y}, seed=1)]).groups
    assert isinstance(group, SeedGroup)
    assert visual_tokens(group) == pytest.approx((30 * 10 + 30 * 20 + 20 * 30) / 80)
    assert visual_tokens(group, ["y"]) == 30


def records() -> list[RunRecord]:
    return [
        spent("none", 144, ratio=1.0), spent("divprune", 16.0), spent("random-pre", 16.0, FEW), spent("fastv", 58.7),
        spent("pdrop", 31.0), spent("vtw", 31.5, FEW), spent("dart", 16.4, ratio=0.25),
        spent("divprune", 16.0, protocol="average"), spent("old", None, ratio=0.25),
    ]  # fmt: skip


def test_methods_are_ranked_among_equal_budgets_and_a_note_says_why() -> None:
    board = leaderboard(records())
    ranks = [(row["method"], row["protocol"], row["rank"] and row["rank"].rank) for row in board.rows]  # type: ignore[union-attr]
    assert ranks == [
        ("none", None, None),
        *[("fastv", "site", None), ("pdrop", "site", 1), ("vtw", "site", 2)],  # the largest budget first
        *[("divprune", "site", 1), ("divprune", "average", 1), ("random-pre", "site", 3), ("dart", "site", 1)],
        ("old", "site", None),
    ]
    notes = [note for note in board.notes if "ranked" in note and "rank [" not in note]
    assert notes == [
        "m, ratio 0.5: ranked and tested apart, because their visual tokens per layer differ by more than 1 token or "
        "2 %: divprune, random-pre (16.0 to 16.4 tokens); pdrop, vtw (31.0 to 31.5 tokens); fastv (58.7 tokens); "
        "--protocol average makes equal budgets.",
        "m: neither ranked nor tested, because visual tokens were not measured, or not on every benchmark that others "
        "have them of (benchmarks without images, records without a ledger): old 0.25.",
    ]


def test_a_budget_group_is_in_the_csv_and_apart() -> None:
    board = leaderboard(records())
    lines = list(csv.DictReader(io.StringIO(board.csv())))
    found = {
        (line["method"], line["budget group"], line["budget group low"], line["budget group high"]) for line in lines
    }
    assert found == {
        ("none", "", "", ""), ("old", "", "", ""), ("fastv", "1", "58.7", "58.7"),
        ("pdrop", "2", "31.0", "31.5"), ("vtw", "2", "31.0", "31.5"),
        *((name, "3", "16.0", "16.4") for name in ("divprune", "random-pre", "dart")),
    }  # fmt: skip
    assert board.apart() == {1, 2, 4, 8}


def test_budgets_of_other_benchmarks_do_not_compare() -> None:
    """A record without the ledger of one benchmark has a mean of other images, though its number agrees."""
    whole = {"x": dataset(HALF), "y": dataset(HALF)}
    part = {"x": dataset(HALF), "y": dataset(HALF, ledger=None)}
    board = leaderboard([run("a", whole), run("b", whole), run("c", part), run("d", part, seed=1), run("d", whole)])
    ranks = {row["method"]: row["rank"] and row["rank"].rank for row in board.rows}  # type: ignore[union-attr]
    assert ranks == {"a": 1, "b": 1, "c": None, "d": None}
    assert any("not on every benchmark" in note and note.endswith(": c 0.5, d 0.5.") for note in board.notes)


def test_equal_budgets_need_no_note() -> None:
    groups = RunComparison([spent("a", 16.0), spent("b", 16.9), spent("c", 40, ratio=0.7)]).groups
    assert budget_notes(budget_groups(groups)) == []


def test_too_few_images_are_noted_and_give_neither_interval_nor_ranks_interval() -> None:
    """One row a benchmark: no [80.0, 80.0], and no certain second place."""
    names = [f"b{n}" for n in range(10)]
    right = {"divprune": [1.0] * 8 + [0.0] * 2, "fastv": [1.0] * 5 + [0.0] * 5}
    runs = [
        run(method, {name: dataset([credit]) for name, credit in zip(names, credits, strict=True)})
        for method, credits in {"none": [1.0] * 10, **right}.items()
    ]
    board = leaderboard(runs)
    rows = {row["method"]: row for row in board.rows}
    assert [str(rows[name]["rank"]) for name in right] == ["1", "2"]
    assert [rows[name]["average"].wide() for name in right] == ["80.0", "50.0"]  # type: ignore[union-attr]
    assert rows["fastv"]["relative %"].interval is None  # type: ignore[union-attr]
    [note] = [note for note in board.notes if note.startswith("Too few images (the fewest of any run): b0 1, b1 1, ")]
    assert "needs 5 of every benchmark" in note
    assert "2,," in board.csv()
