"""Leaderboards of real stored runs: seeds as one row, intervals, ranks, fidelity."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import t

from tests.helpers.records import tokens
from uniprune.cli.run import method_choices
from uniprune.evaluation.dataset import Dataset
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.run import Run
from uniprune.modeling.loading import LoadedModel
from uniprune.results import comparison
from uniprune.results.comparison import RunComparison, groups
from uniprune.results.fidelity import FidelityCache
from uniprune.results.leaderboard import leaderboard
from uniprune.results.records import RunRecord, ScoreRecord
from uniprune.results.statistics import RankInterval
from uniprune.results.store import Store
from uniprune.results.table import ResultTable, ScoreCell
from uniprune.utils.console import RunProgress

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def store(loaded: LoadedModel, small: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Vanilla, random choice under three seeds, and two other methods, on twelve pictures."""
    store = Store(tmp_path_factory.mktemp("runs"))
    choices = [MethodSpec("random-pre", 0.1, seed=seed) for seed in range(3)]
    for choice in [MethodSpec("none"), *choices, MethodSpec("divprune", 0.1), MethodSpec("fastv", 0.1)]:
        with RunProgress(12, Console(quiet=True)) as progress:
            Run(loaded, choice, RunOptions(batch_size=12)).evaluate([small], store, progress)
    return store


def with_credits(record: RunRecord, credits: dict[str, float], **score: object) -> RunRecord:
    """The record as if its answers had been worth other credits, and its budget met in every layer."""
    entry = record.datasets["small"]
    assert entry.score is not None
    changed = {"per_item": credits, "value": 100 * float(np.mean(list(credits.values()))), **score}
    new = ScoreRecord.model_validate(entry.score.model_dump() | changed)
    equal = entry.model_copy(update={"score": new, "ledger": tokens(64 * record.setup.ratio)})
    return record.model_copy(update={"datasets": {"small": equal}})


@pytest.fixture(scope="module")
def records(store: Store) -> list[RunRecord]:
    """The stored runs with planted credits on sixty items: vanilla 95 %, divprune 90 %, fastv 88 %, random 40 %."""
    chance = {"none": 0.95, "divprune": 0.9, "fastv": 0.88, "random-pre": 0.4}
    found = []
    for record in store.records():
        # Not by place: that follows from hashes of the methods' sources, and two averages may come out equal.
        rng = np.random.default_rng([4, record.setup.seed, *record.setup.method.name.encode()])
        right = rng.random(60) < chance[record.setup.method.name]
        found.append(with_credits(record, {str(i): float(r) for i, r in enumerate(right)}))
    return found


def row(board: ResultTable, method: str) -> dict[str, object]:
    [found] = [row for row in board.rows if row["method"] == method]
    return dict(found)


def test_runs_that_differ_in_their_seed_are_one_row(records: list[RunRecord]) -> None:
    random = row(leaderboard(records), "random-pre")
    runs = [r for r in records if r.setup.method.name == "random-pre"]
    values = [run.datasets["small"].score.value for run in runs]  # type: ignore[union-attr]
    average = random["average"]
    assert isinstance(average, ScoreCell)
    assert (random["seed"], len(str(random["identity"]).split())) == ("3 seeds", 3)
    assert average.value == pytest.approx(np.mean(values))
    assert average.spread == pytest.approx(np.std(values, ddof=1))
    assert average.interval is not None
    assert average.interval[0] < average.value < average.interval[1]
    assert row(leaderboard(records), "divprune")["seed"] == 0
    assert [run.random for run in runs] == [(True,)] * 3
    assert len(groups(records)) == 4


def test_seeds_are_the_same_on_every_benchmark(records: list[RunRecord]) -> None:
    """Two seeds, one always right and one always wrong: a second benchmark like this adds no certainty."""
    two = []
    for record in [r for r in records if r.setup.method.name == "random-pre" and r.setup.seed < 2]:
        right = float(record.setup.seed == 0)
        entry = with_credits(record, {str(i): right for i in range(60)}).datasets["small"]
        two.append(record.model_copy(update={"datasets": {"small": entry, "other": entry}}))
    compared = RunComparison(two)
    [group] = compared.groups
    score, average = compared.score(group, "small"), compared.average(group, ["small", "other"])
    assert score.value == average.value == 50
    assert score.error == pytest.approx(average.error)
    assert score.interval() == average.interval() == (0, 100)


def test_a_single_benchmarks_interval_is_the_one_stored(store: Store) -> None:
    stored = list(store.records())
    compared = RunComparison(stored)
    for group in compared.groups:
        score = group.runs[0].datasets["small"].score
        assert score is not None
        if len(group.runs) == 1:
            assert compared.score(group, "small").interval() == pytest.approx(score.interval)


def test_ranks_are_among_pruned_runs_with_ties_marked(records: list[RunRecord]) -> None:
    board = leaderboard(records)
    ranks = {name: row(board, name)["rank"] for name in ("none", "divprune", "fastv", "random-pre")}
    assert ranks["none"] is None
    assert ranks["random-pre"] == RankInterval(3, 3, 3, tied=False)
    close = [ranks["divprune"], ranks["fastv"]]
    assert all(isinstance(rank, RankInterval) and (rank.low, rank.high, rank.tied) == (1, 2, True) for rank in close)
    assert any("Holm" in note for note in board.notes)


def test_a_rival_is_who_spent_as_much_whatever_the_ratio(records: list[RunRecord]) -> None:
    other = next(r for r in records if r.setup.method.name == "fastv")
    passed = other.setup.method.model_copy(update={"passed": {"fastv.layer": 1}})
    setup = other.setup.model_copy(update={"ratio": 0.2, "method": passed})
    moved = other.model_copy(update={"identity": "x", "setup": setup})
    board = leaderboard([*records, moved])
    assert [r["rank"].low for r in board.rows if r["identity"] == "x"] == [1]  # type: ignore[union-attr]
    assert row(board, "random-pre")["rank"].rank == 4  # type: ignore[attr-defined]
    more = with_credits(moved, moved.datasets["small"].score.per_item)  # type: ignore[union-attr]
    board = leaderboard([*records, more])
    assert [r["rank"] for r in board.rows if r["identity"] == "x"] == [None]
    assert row(board, "random-pre")["rank"] == RankInterval(3, 3, 3, tied=False)


def test_a_selection_has_its_own_ranks_and_resamples_nothing_again(
    records: list[RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    resample = comparison.resample
    monkeypatch.setattr(comparison, "resample", lambda scores, name: calls.append(name) or resample(scores, name))
    board = leaderboard(records)
    chosen = {r.identity for r in records if r.setup.method.name in ("fastv", "random-pre") and r.setup.seed == 0}
    selection = board.only(chosen)
    assert calls == ["small"]
    assert [line["method"] for line in selection.rows] == ["fastv", "random-pre"]
    assert row(selection, "random-pre")["seed"] == "3 seeds"  # the other seeds belong to the row
    assert row(selection, "fastv")["rank"] == RankInterval(1, 1, 1, tied=True)
    for name in ("small", "average", "relative %"):  # the un-pruned run that is not shown is still the baseline
        assert row(selection, "fastv")[name] == row(board, "fastv")[name]
    assert board.only([]).rows == []


def test_fidelity_needs_no_label(store: Store) -> None:
    board = leaderboard(list(store.records()), fidelity=FidelityCache(store))
    vanilla, pruned = row(board, "none"), row(board, "random-pre")
    assert (vanilla["agreement %"], vanilla["first-token KL"]) == (ScoreCell(100), ScoreCell(0, form=".3g"))
    agreement, kl = pruned["agreement %"], pruned["first-token KL"]
    assert isinstance(agreement, ScoreCell)
    assert isinstance(kl, ScoreCell)
    assert agreement.interval is not None
    assert kl.interval is not None
    assert 0 <= agreement.interval[0] <= agreement.value <= agreement.interval[1] <= 100
    assert 0 < kl.interval[0] < kl.value < kl.interval[1]
    [line] = [one for one in csv.DictReader(io.StringIO(board.csv())) if one["method"] == "random-pre"]
    assert float(line["first-token KL low"]) == kl.interval[0]
    assert float(line["agreement % high"]) == agreement.interval[1]
    assert row(leaderboard(list(store.records())), "none")["agreement %"] is None


def test_fidelity_is_that_of_the_rows_and_its_interval_of_the_pictures(store: Store) -> None:
    """Means of what the stored answers say; wider where rows share pictures; none where that is not known."""
    records, cache = list(store.records()), FidelityCache(store)
    none, fastv = (next(r for r in records if r.setup.method.name == name) for name in ("none", "fastv"))
    found_by_row = cache(none, fastv, "small")
    assert found_by_row is not None
    assert found_by_row.kl is not None

    def found(clusters: dict[str, str], scored: bool = True) -> tuple[ScoreCell, ScoreCell]:
        entry = none.datasets["small"]
        assert entry.score is not None
        score = entry.score.model_copy(update={"clusters": clusters}) if scored else None
        base = none.model_copy(update={"datasets": {"small": entry.model_copy(update={"score": score})}})
        line = row(leaderboard([base, fastv], fidelity=cache), "fastv")
        return line["agreement %"], line["first-token KL"]  # type: ignore[return-value]

    alone, paired = found({}), found({str(i): str(i // 2) for i in range(12)})
    for agreement, kl in (alone, paired, found({}, scored=False)):
        assert agreement.value == pytest.approx(100 * np.mean(found_by_row.same))
        assert kl.value == pytest.approx(np.mean(found_by_row.kl))
    spread = np.std(found_by_row.kl) / 12**0.5
    assert alone[1].interval is not None
    wide = np.diff(alone[1].interval)
    assert wide == pytest.approx(2 * t.ppf(0.975, 11) * spread * (12 / 11) ** 0.5, rel=0.15)
    assert paired[1].interval is not None
    assert paired[1].interval != alone[1].interval
    assert [one.interval for one in found({}, scored=False)] == [None, None]


def test_what_was_compared_is_kept_until_the_answers_change(store: Store, tmp_path: Path) -> None:
    copy = Store(shutil.copytree(store.root, tmp_path / "runs"))
    records = {record.setup.method.name: record for record in copy.records()}
    none, fastv = records["none"], records["fastv"]
    kept = copy.root / fastv.identity / "small.fidelity.json"
    kept.unlink(missing_ok=True)
    first = FidelityCache(copy)(none, fastv, "small")
    assert first is not None
    assert first.rows == [str(i) for i in range(12)]
    kept.write_text(kept.read_text().replace('"rows": ["0"', '"rows": ["99"'))
    again = FidelityCache(copy)(none, fastv, "small")
    assert again is not None
    assert again.rows[0] == "99", "computed again although nothing changed"
    answers = copy.root / fastv.identity / "small.jsonl"
    answers.write_bytes(b"".join(answers.read_bytes().splitlines(keepends=True)[:5]) + b'{"index": "5", "pred')
    changed = FidelityCache(copy)(none, fastv, "small")
    assert changed is not None
    assert len(changed.rows) == 5
    kept.write_text('{"cut')
    assert FidelityCache(copy)(none, fastv, "small") == changed
    assert FidelityCache(copy)(none, fastv, "elsewhere") is None


def test_a_headline_that_does_not_follow_from_items_is_said_to_be_so(records: list[RunRecord]) -> None:
    odd = [with_credits(r, r.datasets["small"].score.per_item, value=50, interval_of="mean credit") for r in records]  # type: ignore[union-attr]
    board = leaderboard(odd)
    assert any("mean credit per item, not of the headline, for small" in note for note in board.notes)
    assert row(board, "fastv")["small"].value == 50  # type: ignore[attr-defined]


def test_csv_has_plain_numbers_and_markdown_says_the_same(records: list[RunRecord]) -> None:
    board = leaderboard(records)
    [random] = [line for line in csv.DictReader(io.StringIO(board.csv())) if line["method"] == "random-pre"]
    names = ("average low", "average", "average high")
    low, value, high = (float(random[name]) for name in names)
    assert low < value < high
    assert (random["rank"], random["rank low"], random["rank high"], random["rank tied"]) == ("3", "3", "3", "0")
    assert float(random["small std"]) == float(random["average std"])
    assert f"[{low:.1f}, {high:.1f}]" in board.markdown()
    assert "3 [3–3]" in board.markdown()


def test_seeds_are_runs_of_methods_that_choose_by_chance_only() -> None:
    from uniprune.cli import discover
    from uniprune.cli.parser import build_parser

    words = "run --method none random-pre divprune divprune+random-intra --ratio 0.1 0.2 --seed 0 1 2"
    choices = method_choices(build_parser(discover()).parse_args(words.split()))
    seeds = {(c.name, c.ratio): [d.seed for d in choices if (d.name, d.ratio) == (c.name, c.ratio)] for c in choices}
    assert seeds == {
        ("none", 1.0): [0],
        **{("divprune", ratio): [0] for ratio in (0.1, 0.2)},
        **{(name, ratio): [0, 1, 2] for name in ("random-pre", "divprune+random-intra") for ratio in (0.1, 0.2)},
    }
