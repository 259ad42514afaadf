"""Hard and easy rows: parted by a resized run of equal budget, with conditional intervals, on the leaderboard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar

from tests.helpers.records import dataset, run, score, tokens
from uniprune.results.comparison import RunComparison
from uniprune.results.hard_accuracy import HardRows, NoReference, PartScore
from uniprune.results.leaderboard import leaderboard
from uniprune.results.records import MethodRecord, RunRecord
from uniprune.results.statistics import normal_means, paired, resampled_means
from uniprune.results.statistics.estimate import SHARE
from uniprune.results.table import PartCell

Credits = Sequence[float] | dict[str, float] | NDArray[np.float64]


def resized(credits: Credits, average: float = 16.0) -> RunRecord:
    resolved: dict[str, object] = {"ratio": 0.5, "form": average, "seed": 0}
    method = MethodRecord(name="resize", kind="input", passed={}, resolved=[resolved], stages=[], code="c")
    return spent(method, credits, average)


def spent(method: str | MethodRecord, credits: Credits, average: float = 16.0, **fields: int) -> RunRecord:
    found = score(dict(credits) if isinstance(credits, dict) else [float(credit) for credit in credits])
    clusters = {item: str(int(item) // 2) for item in found.per_item} if fields.pop("paired", 0) else {}
    entry = dataset(found.model_copy(update={"clusters": clusters}), ledger=tokens(average))
    return run(method, {"x": entry}, **fields)  # type: ignore[arg-type]


def parts(records: Sequence[RunRecord], method: str = "a") -> dict[str, PartScore]:
    hard = HardRows(RunComparison(records))
    [group] = [group for group in hard.comparison.groups if group.setup.method.name == method]
    return hard.scores(group, "x")


#        hard and easy rows, of which the un-pruned model answers the second half of each right
SMALL = [0.0] * 10 + [1.0] * 20
WHOLE = [0.0] * 5 + [1.0] * 5 + [0.0] * 10 + [1.0] * 10
OURS = [1.0, 0, 0, 0, 0, 1, 1, 1, 0, 0] + [1.0] * 12 + [0.0] * 8


def test_rows_are_parted_by_the_resized_run_and_by_the_un_pruned_one() -> None:
    found = parts([spent("none", WHOLE, 144), resized(SMALL), spent("a", OURS)])
    assert {part: (one.accuracy and round(one.accuracy.value, 6), one.rows) for part, one in found.items()} == {
        "hard": (40.0, 10), "easy": (60.0, 20), "hard known": (60.0, 5), "easy known": (20.0, 10)
    }  # fmt: skip
    low, high = found["hard"].accuracy.interval()  # type: ignore[misc,union-attr]
    assert 0 < low < 40 < high < 100
    assert set(parts([resized(SMALL), spent("a", OURS)])) == {"hard", "easy"}, "no un-pruned run"


def test_half_a_credit_is_right_and_accuracy_is_the_mean_credit() -> None:
    found = parts([resized([0.0, 0.3, 0.5, 1.0]), spent("a", [0.3, 0.9, 0.6, 0.0])])
    assert [(one.rows, round(one.accuracy.value)) for one in found.values() if one.accuracy] == [(2, 60), (2, 30)]
    assert all(one.accuracy and one.accuracy.interval() is None for one in found.values()), "two images"


def test_rows_without_an_answer_are_wrong_and_counted() -> None:
    records = [resized(SMALL), spent("a", {str(row): 1.0 for row in range(2, 29)})]
    found = parts(records)
    assert [(one.unanswered, round(one.accuracy.value)) for one in found.values() if one.accuracy] == [(2, 80), (1, 95)]
    assert "Rows without an answer count as wrong there: m a 0.5 3 of x." in leaderboard(records).notes


def test_an_empty_part_has_no_accuracy() -> None:
    board = leaderboard([resized([1.0] * 20), spent("a", OURS[:20])])
    [row] = [row for row in board.rows if row["method"] == "a"]
    assert "x hard" not in row
    assert str(row["x easy"]) == "70.0 (20)"
    assert "Parted by m resize 0.5: x 0 hard, 20 easy rows (no un-pruned run)." in board.notes


def test_seeds_are_averaged_and_add_their_part() -> None:
    other = [1.0] * 10 + OURS[10:]
    found = parts([resized(SMALL), spent("a", OURS), spent("a", other, seed=1)])["hard"]
    assert found.accuracy is not None
    assert (found.accuracy.value, found.rows, len(found.accuracy.seeds)) == (70.0, 10, 1)


def test_only_a_resized_run_of_equal_measured_budget_parts_rows() -> None:
    """Of two the nearest; the nominal ratio says nothing."""
    records = [resized(SMALL, 14.0), resized([0.0] * 15 + [1.0] * 15, 16.4), resized(SMALL, 17.0), spent("a", OURS)]
    assert parts(records)["hard"].rows == 15
    far = [resized(SMALL, 14.0), resized(SMALL, 32.0), spent("a", OURS), spent("b", OURS, 58.7), spent("c", OURS, 13.0)]
    hard = HardRows(RunComparison(far))
    found = [hard.reference(group, "x") for group in hard.comparison.groups]
    assert found[:2] == [None, None]
    assert found[2:4] == [NoReference(16.0, (14.0, 32.0)), NoReference(58.7, (14.0, 32.0))]
    board = leaderboard(far)
    shown = {row["method"]: row.get("x hard") for row in board.rows}
    assert shown["a"] is shown["b"] is shown["resize"] is None
    assert isinstance(shown["c"], PartCell)
    [note] = [note for note in board.notes if note.startswith("No hard and easy rows")]
    assert note == (
        "No hard and easy rows, as the budget of every resized run, in visual tokens per layer, differs by more than 1 "
        "token or 2 %: m a 0.5 (16.0), m b 0.5 (58.7) on x; resized 14.0, 32.0."
    )


def test_other_rows_or_settings_are_no_reference() -> None:
    other = resized(SMALL)
    entry = other.datasets["x"].model_copy(update={"prompts": "others"})
    [note] = [
        note
        for note in leaderboard([other.model_copy(update={"datasets": {"x": entry}}), spent("a", OURS)]).notes
        if note.startswith("No hard and easy rows")
    ]
    assert note.endswith("m a 0.5 (16.0) on x; no resized run with the same settings and rows.")


def test_files_have_intervals_and_sizes_and_without_a_resized_run_there_is_nothing() -> None:
    board = leaderboard([spent("none", WHOLE, 144), resized(SMALL), spent("a", OURS)])
    header = board.csv().splitlines()[0]
    for suffix in ("", " low", " high", " rows", " unanswered"):
        assert f"x hard known{suffix}," in f"{header},"
    assert "| 40.0 (10) |" in board.markdown()
    [ours] = [row for row in board.rows if row["method"] == "a"]
    assert board.only([str(ours["identity"])]).details == ["x hard known", "x easy known"]
    plain = leaderboard([spent("none", WHOLE, 144), spent("a", OURS)])
    assert not any("hard" in text for text in (*plain.columns, *plain.notes))


def drawn(rng: np.random.Generator, rows: int, alike: float) -> tuple[NDArray[np.float64], ...]:
    """Three runs, right on 60 % of the rows; answers of the first two agree by luck of the row in a share of them."""
    chance = rng.beta(1.2, 0.8, rows)
    luck = rng.random((3, rows))
    luck[1] = np.where(rng.random(rows) < alike, luck[0], luck[1])
    return tuple((one < chance) * 1.0 for one in luck)


def test_the_paired_test_on_hard_rows_is_mcnemars() -> None:
    rng = np.random.default_rng(0)
    small, one, other = drawn(rng, 1500, 0.0)
    other = np.where(rng.random(1500) < 0.25, 1.0, other)
    records = [resized(small), spent("a", one), spent("b", other)]
    first, second = (parts(records, method)["hard"].accuracy for method in "ab")
    assert first is not None
    assert second is not None
    test = paired(second - first)
    hard = small < 0.5
    table = [[int(((one == i) & (other == j) & hard).sum()) for j in (1, 0)] for i in (1, 0)]
    exact = mcnemar(table, exact=True).pvalue
    assert test is not None
    assert test.difference == pytest.approx(100 * (other[hard].mean() - one[hard].mean()))
    assert 0.7 < np.log(test.p) / np.log(exact) < 1.4
    assert test.p < 0.05


def test_normal_draws_have_the_spread_of_the_bootstrap() -> None:
    rng = np.random.default_rng(4)
    rows, clusters = [str(n) for n in range(300)], {str(n): str(n // 3) for n in range(200)}
    values = 100.0 * (rng.random((3, 300)) < 0.6)
    values[2] = values[1]
    normal, resampled = (make(rows, clusters, values, "x", SHARE) for make in (normal_means, resampled_means))
    for one, other in zip(normal, resampled, strict=True):
        assert (one.value, one.clusters) == (pytest.approx(other.value), other.clusters)
        assert one.error == pytest.approx(other.error, rel=0.06)
    assert (normal[0] - normal[1]).error == pytest.approx((resampled[0] - resampled[1]).error, rel=0.06)
    assert (normal[2] - normal[1]).error == 0, "the same answers"
    sure = normal_means(rows, clusters, np.full((1, 300), 100.0), "x", SHARE)[0]
    assert (sure.error, sure.interval()) == (0, pytest.approx(sure.alike()))


TRIALS = 150


@pytest.mark.exhaustive
@pytest.mark.parametrize("rows", [60, 400])
def test_simulated_hard_rows(rows: int) -> None:
    """Exchangeable methods differ in 5 % of trials; the interval holds the conditional accuracy of these rows."""
    held = different = trials = 0
    accuracy = []
    for trial in range(TRIALS):
        rng = np.random.default_rng([rows, trial])
        small, one, other = drawn(rng, rows, 0.0)
        records = [resized(small), spent("a", one), spent("b", other)]
        first, second = (parts(records, method)["hard"].accuracy for method in "ab")
        assert first is not None
        assert second is not None
        interval, test = first.interval(), paired(first - second)
        if interval is None or test is None:
            continue
        # E[c(1 - c)] / E[1 - c] of a chance c drawn from Beta(1.2, 0.8)
        mean, square = 0.6, 1.2 * 2.2 / (2 * 3)
        trials, held = trials + 1, held + (interval[0] <= 100 * (mean - square) / (1 - mean) <= interval[1])
        different += test.p < 0.05
        accuracy.append(first.value)
    print(f"\n{rows} rows: hard {np.mean(accuracy):.1f}, held {held}, different {different} of {trials}")
    assert held >= binom.ppf(0.001, trials, 0.94)
    assert different <= binom.ppf(0.999, trials, 0.06)
    assert abs(np.mean(accuracy) - 40) < 3, "not 0: the rows were chosen by another run's luck"


def test_rows_about_one_image_are_drawn_together() -> None:
    records = [spent(one, np.repeat(values, 2), paired=1) for one, values in (("a", OURS), ("b", SMALL))]
    small = resized(np.repeat(SMALL, 2))
    entry = small.datasets["x"]
    assert entry.score is not None
    clusters = {item: str(int(item) // 2) for item in entry.score.per_item}
    entry = entry.model_copy(update={"score": entry.score.model_copy(update={"clusters": clusters})})
    found = parts([small.model_copy(update={"datasets": {"x": entry}}), *records])["hard"]
    assert found.accuracy is not None
    assert (found.rows, found.accuracy.clusters) == (20, 10)
