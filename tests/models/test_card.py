"""The model card describes the weights beside it, and they do what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import binomtest

from uniprune.models.tiny.build import FAMILIES
from uniprune.models.tiny.measure import HERE, measure, table, weights_sha256

pytestmark = pytest.mark.end_to_end

TARGETS = {"yes/no": 0.95, "multiple choice": 0.90, "reading, exact": 0.90, "counting": 0.85}
SHORT = {"qwen3-vl": {"counting": 0.80}}
"""Family -> lower targets, after its shorter training."""
MEASURED = json.loads((HERE / "measured.json").read_text(encoding="utf-8"))


def test_the_card_holds_the_measured_table() -> None:
    assert table(MEASURED) in (HERE / "README.md").read_text(encoding="utf-8")


def test_all_weights_together_stay_under_12_megabytes() -> None:
    assert sum(file.stat().st_size for file in Path(HERE).glob("*/model.safetensors")) < 12e6


@pytest.mark.parametrize("family", FAMILIES)
def test_the_measured_weights_are_the_ones_in_the_repository(family: str) -> None:
    assert MEASURED[family]["sha256"] == weights_sha256(HERE / family)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ability", TARGETS)
def test_targets_are_reached(family: str, ability: str) -> None:
    right, asked = MEASURED[family]["right"][ability]
    assert right / asked >= SHORT.get(family, TARGETS).get(ability, TARGETS[ability])


@pytest.mark.sample(2)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_fresh_measurement_agrees(family: str) -> None:
    """Other questions than the recorded ones: the counts may differ by chance only (99.9 % for each)."""
    for ability, (right, asked) in measure(HERE / family, questions=12, seed=1).items():
        recorded, of = MEASURED[family]["right"][ability]
        share = min((recorded + 1) / (of + 2), 0.999)
        assert binomtest(right, asked, share).pvalue > 0.001, (ability, right, asked, recorded, of)
