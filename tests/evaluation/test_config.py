"""Sweep files: their expansion to runs, and messages for mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from uniprune.errors import UserError
from uniprune.evaluation.config import read_sweep


def sweep(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    return file


def test_a_block_is_the_cross_product_of_its_lists(tmp_path: Path) -> None:
    file = sweep(
        tmp_path,
        """
        title: all forms
        runs:
          - model: a
            method: [none, {name: fastv, layer: 3}, {name: zspaprune, set: {k: 0.4, pooling: max}}]
            ratio: [0.5, 0.25]
            data: [x, y]
          - {model: [a, b], method: random-pre, ratio: 0.5, seed: [0, 1], suite: s, protocol: average, limit: 7}
        """,
    )
    cells = read_sweep(file).cells()
    assert [(c.model, c.choice.name, c.choice.ratio, c.choice.seed) for c in cells] == [
        ("a", "none", 1.0, 0),
        ("a", "fastv", 0.5, 0),
        ("a", "fastv", 0.25, 0),
        ("a", "zspaprune", 0.5, 0),
        ("a", "zspaprune", 0.25, 0),
        ("a", "random-pre", 0.5, 0),
        ("a", "random-pre", 0.5, 1),
        ("b", "random-pre", 0.5, 0),
        ("b", "random-pre", 0.5, 1),
    ]
    assert cells[1].choice.layer == 3
    assert cells[3].choice.fields() == {"zspaprune": {"k": 0.4, "pooling": "max"}}
    assert {(c.data, c.suite, c.protocol, c.limit) for c in cells} == {
        (("x", "y"), None, "site", None),
        (None, "s", "average", 7),
    }


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{method: none}", "runs.0.model: Field required"),
        ("{model: a, method: none, ratios: [1]}", "runs.0.ratios: Extra inputs"),
        ("{model: a, method: none, data: [x], suite: s}", "data or suite, not both"),
        ("{model: a, method: [], data: x}", "runs.0.method"),
        ("{model: a, method: none, limit: 0}", "runs.0.limit"),
        ("{model: a, method: divprun}", "did you mean 'divprune'"),
        ("{model: a, method: divprune, ratio: 1.5}", "keep ratio 1.5"),
        ("{model: a, method: {name: fopru, set: {strateg: row}}}", "did you mean 'strategy'"),
        ("{model: a, method: none", "cannot be read as YAML"),
        ("{model: a, method: [divprune, fastv], method: none}", "line 3: key 'method' is given twice"),
        ("{model: a, method: none, limit: yes}", "runs.0.limit: Input should be a valid integer"),
        ("{model: a, method: none, limit: true}", "runs.0.limit: Input should be a valid integer"),
        ("{model: a, method: none, ratio: true}", "runs.0.ratio.0: Input should be a valid number"),
        ("{model: a, method: divprune, ratio: '0.5'}", "runs.0.ratio.0: Input should be a valid number"),
        ("{model: a, method: divprune, ratio: .nan}", "line 3: .nan is no finite number"),
        ("{model: a, method: none, seed: 1.5}", "runs.0.seed.0: Input should be a valid integer"),
        ("{model: 1.0, method: none}", "runs.0.model.0: Input should be a valid string"),
        ("{model: a, method: {name: fastv, layer: '3'}}", "runs.0.method.0.layer: Input should be a valid integer"),
        ("{model: a, method: {name: vispruner, set: {step: '3'}}}", 'step="3": input should be a valid integer'),
        ("{model: a, method: {name: vispruner, set: {step: true}}}", "step=true: input should be a valid integer"),
    ],
)
def test_mistakes_are_named(block: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        read_sweep(sweep(tmp_path, f"title: t\nruns:\n  - {block}\n")).cells()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml does not exist"):
        read_sweep(tmp_path / "nowhere.yaml")
