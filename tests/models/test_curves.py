"""Claims about the committed table of the mini suite."""

from __future__ import annotations

import csv
from collections import defaultdict

import pytest

from tests.helpers.paths import ROOT

ABILITIES = ("comprehensive", "mathematical", "ocr", "instruction", "multidisciplinary", "hallucination")
METHODS = ("random-pre", "random-intra", "divprune", "fastv")
MODELS = ("tiny-llava", "tiny-internvl", "tiny-qwen2.5-vl", "tiny-qwen3-vl")


@pytest.fixture(scope="module")
def table() -> dict[tuple[str, str], dict[float, dict[str, float]]]:
    """(model, method) -> ratio -> column -> value; ratio 1 is the vanilla run."""
    out: dict[tuple[str, str], dict[float, dict[str, float]]] = defaultdict(dict)
    with (ROOT / "docs" / "mini-suite.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            values = {name: float(row[name]) for name in (*ABILITIES, "average")}
            for method in METHODS if row["method"] == "none" else (row["method"],):
                out[row["model"], method][float(row["ratio"])] = values
    return out


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_averages_fall_with_the_ratio(table, model: str, method: str) -> None:
    curve = table[model, method]
    averages = [curve[ratio]["average"] for ratio in (1.0, 0.5, 0.333, 0.222, 0.111)]
    assert averages == sorted(averages, reverse=True)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_reading_is_among_the_two_most_fragile_abilities(table, model: str, method: str) -> None:
    full, pruned = table[model, method][1.0], table[model, method][0.111]
    lost = sorted(ABILITIES, key=lambda ability: pruned[ability] / full[ability])
    assert "ocr" in lost[:2]


@pytest.mark.parametrize("model", MODELS)
def test_methods_differ_and_random_fails_at_one_ninth(table, model: str) -> None:
    assert table[model, "random-pre"][0.111]["average"] <= 65
    difference = table[model, "divprune"][0.222]["average"] - table[model, "random-pre"][0.222]["average"]
    assert abs(difference) >= 10


def test_every_method_is_in_the_table_on_every_model_at_every_ratio_or_named_beside_it() -> None:
    from uniprune.benchmarks.mini.pages import FREE, NEWER, TOWER, UNMEASURED
    from uniprune.registry import METHODS as REGISTERED

    rows: list[dict[str, str]] = []
    for page in ("mini-suite-methods", "mini-suite-newer"):
        with (ROOT / "docs" / f"{page}.csv").open(encoding="utf-8", newline="") as stream:
            rows += csv.DictReader(stream)
    found = {(row["model"], row["method"], row["ratio"]) for row in rows}
    embedded = {
        name for name in REGISTERED.names() if REGISTERED.entry(name).target.__module__.startswith("uniprune.methods.")
    }
    grid = [f"{a}+{b}" for a in ("random-pre", "divprune", "gprune") for b in ("random-intra", "fastv")]
    later = {*NEWER.split(), *TOWER.split()}
    measured = {"tiny-llava": later, "tiny-internvl": set[str](), "tiny-qwen2.5-vl": {FREE}}
    for model, newer in measured.items():
        assert (model, "none", "1") in found
        for method in [*(embedded - {"none", FREE} - later - set(UNMEASURED)), *newer, *grid]:
            assert {(model, method, ratio) for ratio in ("0.333", "0.222", "0.111")} <= found
    compared = [row for row in rows if row["method"] not in ("none", "random-pre", "random-intra")]
    equal = [row for row in compared if row["random"]]  # the others kept another number of tokens than random pruning
    assert len(equal) > len(compared) / 2
    assert all(float(row["low"]) <= float(row["random"]) <= float(row["high"]) for row in equal)
