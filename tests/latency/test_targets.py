"""The targets that rows of `bench` are compared with: which rows, which limits, met or missed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.helpers.paths import ROOT
from tests.perf.targets import TargetResult, main, tower_verdicts, verdicts
from uniprune.latency.rows import BenchFile, BenchRow, GraphResult

MEASURED = ROOT / "docs" / "performance" / "h200-2026-11-27.jsonl"
NET, EVERY, TIME = "net speed-up / ceiling", "net speed-up / ceiling, every method", "method time"
MEMORY, BUSY = "peak memory above un-pruned", "busy times of equal tokens"


@pytest.fixture(scope="module")
def rows() -> list[BenchRow]:
    """Return rows that an H200 measured."""
    return list(BenchFile(MEASURED).rows.values())


def of(rows: Iterable[BenchRow], batch: int, visual: int, model: str = "qwen") -> list[BenchRow]:
    return [row for row in rows if (row.setup.batch, row.setup.visual) == (batch, visual) and model in row.setup.model]


def judged(rows: Iterable[BenchRow]) -> dict[tuple[str, str], TargetResult]:
    return {(one.method.replace(" 0.111", ""), one.target): one for one in verdicts(rows)}


def altered(row: BenchRow, busy: dict[str, float] | None = None, **setup: Any) -> BenchRow:
    return row.with_busy(busy).model_copy(update={"setup": row.setup.model_copy(update=setup)})


def test_small_prompts_and_many_kept_tokens_have_no_targets(rows: list[BenchRow]) -> None:
    assert not judged(of(rows, 8, 256))
    assert not judged(altered(row, ratio=0.333) for row in of(rows, 8, 1280))
    assert not judged(altered(row, batch=2) for row in of(rows, 8, 1280))


def test_the_method_time_of_one_prompt_depends_on_what_the_method_declares(rows: list[BenchRow]) -> None:
    found = judged(of(rows, 1, 1280))
    assert {target for _, target in found} == {TIME}
    limits = {name: one.limit for (name, _), one in found.items()}
    assert limits == {
        **dict.fromkeys(("random-pre", "random-intra"), 0.6),
        **dict.fromkeys(("divprune", "cdpruner", "fastv"), 1.2),
        **dict.fromkeys(("gprune", "visionzip", "zspaprune", "fopru", "dart"), 2.5),
        **dict.fromkeys(("sparsevlm", "mustdrop"), 3.0),
    }
    assert not any(one.met for one in found.values())
    assert str(found["visionzip", TIME]).endswith("| 11.35 ms (≤ 2.50 ms) | MISSED |")


def test_the_net_speed_up_of_a_batch_depends_on_attention(rows: list[BenchRow]) -> None:
    found = judged(of(rows, 16, 576, "llava"))
    limits = {name: one.limit for (name, target), one in found.items() if target == NET}
    assert limits == {"random-pre": 0.85, "divprune": 0.85, "fastv": 0.75, "vispruner": 0.75, "prumerge": 0.75}
    assert found["fastv", NET].value == pytest.approx(288.5 / (72.7 + 18.16) / 4.11, rel=1e-3)
    assert [found[name, NET].met for name in limits] == [False, False, True, False, False]
    assert [found[name, EVERY].met for name in limits] == [True, True, True, False, False]
    assert {name for name, target in found if target == MEMORY} == {"fastv", "vispruner", "prumerge"}
    assert str(found["fastv", NET]) == (
        "| llava-1.5-7b, 16 x 576, NVIDIA H200 | fastv 0.111 | net speed-up / ceiling | 77.3% (≥ 75.0%) | met |"
    )


def test_equal_tokens_keep_a_gpu_busy_for_equally_long(rows: list[BenchRow]) -> None:
    group = of(rows, 8, 1280)
    assert {target for _, target in judged(group)} == {NET, EVERY, MEMORY}  # nobody profiled them
    times = {"none": 0.26, "random-pre": 0.0435, "divprune": 0.04393, "fastv": 0.05}
    found = judged(altered(row, busy={"prefill": times[row.setup.method.name]}) for row in group)
    assert {name for name, target in found if target == BUSY} == {"random-pre, divprune"}  # FastV keeps layers 0, 1
    assert found["random-pre, divprune", BUSY].met
    times["divprune"] = 0.04395
    found = judged(altered(row, busy={"prefill": times[row.setup.method.name]}) for row in group)
    assert not found["random-pre, divprune", BUSY].met


def test_one_prompt_as_cuda_graphs_reaches_half_of_its_ceiling(rows: list[BenchRow]) -> None:
    def graphs(row: BenchRow, seconds: float) -> BenchRow:
        return row.with_graphs(GraphResult(seconds=[seconds], segments=1, vanilla=0.036))

    group = [
        graphs(row, {"divprune": 0.0075, "gprune": 0.0085}.get(row.setup.method.name, 1)) for row in of(rows, 1, 1280)
    ]
    found = {name: one for (name, target), one in judged(group).items() if target == "net speed-up of graphs / ceiling"}
    assert found["divprune"].value == pytest.approx(0.036 / (0.0075 + 0.00285) / 6.75, rel=1e-2)
    assert (found["divprune"].met, found["gprune"].met, found["gprune"].limit) == (True, False, 0.5)
    others = judged(graphs(row, 0.01) for row in of(rows, 1, 576, "llava"))
    assert {target for _, target in others} == {TIME}


def test_the_tower_has_a_target_for_one_image_and_for_eight() -> None:
    row = {"model": "qwen2.5-vl-7b", "tokens": 1280, "device": "NVIDIA H200"}
    lines = [row | {"batch": 1, "ratio": 2.6}, row | {"batch": 8, "ratio": 5.9}, row | {"batch": 2, "ratio": 1.0}]
    one, eight = tower_verdicts([*lines, {**lines[0], "model": "llava-1.5-7b"}])
    assert (one.met, eight.met) == (True, False)
    assert str(eight).endswith("| tower against sdpa | 5.90 x (≥ 6.00 x) | MISSED |")


def test_the_program_prints_all_and_fails_if_one_is_missed(
    rows: list[BenchRow], tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(MEASURED)]) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith(" targets met.")
    BenchFile(tmp_path / "b.jsonl").append(of(rows, 8, 256))
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "b.jsonl")])
    assert "no pruned row of 576 visual tokens" in capsys.readouterr().err
