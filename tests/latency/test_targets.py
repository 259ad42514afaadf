"""The targets that rows of `bench` are held against: which rows, which limits, met or missed."""

import pytest

from tests.latency.test_bench import CPU, bench
from tests.perf.targets import TargetResult, verdicts
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.latency.rows import BenchRow
from uniprune.latency.timed_model import load_timed

CHOICES = (
    MethodSpec("none"),
    *(MethodSpec(name, ratio=0.111) for name in ("divprune", "random-pre", "fastv", "visionzip")),
    MethodSpec("divprune", ratio=0.5),
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[BenchRow]:
    return bench(
        load_timed("tiny-llava", random_weights=True, placement=CPU),
        tmp_path_factory.mktemp("b") / "b",
        choices=CHOICES,
    )


def large(row: BenchRow, **seconds: list[float]) -> BenchRow:
    """The row as if it had been measured at 1280 tokens, with other times and with GPU memory."""
    assert row.measured is not None
    measured = row.measured.model_copy(update={"seconds": row.measured.seconds | seconds, "peak_bytes": 1000})
    return row.model_copy(update={"setup": row.setup.model_copy(update={"visual": 1280}), "measured": measured})


def told(rows: list[BenchRow]) -> dict[tuple[str, str], TargetResult]:
    return {(one.method.replace(" 0.111", ""), one.target): one for one in verdicts(rows)}


def test_small_batches_have_no_targets(rows: list[BenchRow]) -> None:
    assert not told(rows)


def test_every_kind_of_method_has_its_limits(rows: list[BenchRow]) -> None:
    found = told([large(row) for row in rows])
    share, time, memory = "share of the ceiling", "method time / vanilla prefill", "peak memory above vanilla"
    names = ("divprune", "random-pre", "fastv", "visionzip")
    assert {method for method, target in found if target == share} == set(names)
    assert [found[name, time].limit for name in names] == [0.01, 0.01, 0.03, 0.03]
    assert {method for method, target in found if target == memory} == {"fastv", "visionzip"}
    pairs = {method for method, target in found if target == "prefills of equal tokens"}
    assert pairs == {"divprune, random-pre", "divprune, visionzip", "random-pre, visionzip"}  # FastV keeps layers 0, 1


def test_verdicts_follow_the_numbers(rows: list[BenchRow]) -> None:
    vanilla, divprune, random, fastv = rows[:4]
    assert divprune.vanilla is not None
    unpruned = divprune.vanilla.prefill
    ceiling = large(divprune).speedups["prefill ceiling"]
    group = [
        large(vanilla),
        large(divprune, prefill=[unpruned / ceiling / 0.71], method=[0.0099 * unpruned]),
        large(random, prefill=[unpruned / ceiling / 0.69], method=[0.0101 * unpruned]),
        large(fastv, method=[0.0299 * unpruned]),
    ]
    group[3] = group[3].model_copy(
        update={"measured": group[3].measured and group[3].measured.model_copy(update={"peak_bytes": 1021})}
    )
    found = told(group)
    assert found["divprune", "share of the ceiling"].met
    assert not found["random-pre", "share of the ceiling"].met
    assert found["divprune", "method time / vanilla prefill"].met
    assert not found["random-pre", "method time / vanilla prefill"].met
    assert found["fastv", "method time / vanilla prefill"].met
    memory = found["fastv", "peak memory above vanilla"]
    assert not memory.met
    assert "2.1% (≤ 2%) | MISSED" in str(memory)
    assert found["divprune, random-pre", "prefills of equal tokens"].value == pytest.approx(0.71 / 0.69 - 1)
