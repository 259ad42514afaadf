"""Hashes and seeds have fixed values: a change would give every stored run another identity."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.paths import ROOT
from uniprune.utils.hashing import files_hash, seeded_generator, stable_hash

VALUE = {"name": "é", "ratio": 0.1, "layers": (1, 2), "none": None, "sure": True}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, "44136fa355b3678a"),
        ([1, 2.5, None, True, "x"], "f58b44e5acfe005e"),
        (VALUE, "dae8e0f70ced7a82"),
        (float("nan"), "d5b592c05dc25b50"),
    ],
    ids=["empty", "list", "mapping", "nan"],
)
def test_values_have_fixed_hashes(value: object, expected: str) -> None:
    assert stable_hash(value) == expected


def test_neither_the_order_of_keys_nor_the_kind_of_sequence_matters() -> None:
    assert stable_hash(dict(reversed(VALUE.items()))) == stable_hash(VALUE | {"layers": [1, 2]}) == stable_hash(VALUE)
    assert stable_hash({"a": {"b": 1, "c": 2}}) == stable_hash({"a": {"c": 2, "b": 1}})


@pytest.mark.parametrize(
    "other",
    [*(VALUE | change for change in ({"ratio": 0.1 + 2**-56}, {"layers": [2, 1]}, {"sure": 1}, {"none": 0})), [VALUE]],
    ids=["last bit", "order of items", "one is not true", "zero is not none", "list"],
)
def test_different_values_have_different_hashes(other: object) -> None:
    assert stable_hash(other) != stable_hash(VALUE)


def test_numbers_that_json_lacks_are_told_apart() -> None:
    assert len({stable_hash(float(text)) for text in ("nan", "inf", "-inf")}) == 3
    assert stable_hash(float("nan")) == stable_hash(-float("nan"))


def test_objects_that_json_lacks_are_refused() -> None:
    with pytest.raises(TypeError, match="PosixPath is not JSON serializable"):
        stable_hash({"path": Path("x")})


def test_files_are_hashed_by_name_and_content(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    known = files_hash([("a", one), ("b", other)])
    assert known == "4a5e2cd6c5670269"
    assert files_hash([("b", other), ("a", one)]) == known
    (tmp_path / "moved").write_bytes(b"1")
    assert files_hash([("a", tmp_path / "moved"), ("b", other)]) == known
    assert files_hash([("a", other), ("b", one)]) != known
    assert files_hash([("c", one), ("b", other)]) != known
    assert files_hash([]) == stable_hash([])


def test_generators_depend_on_every_part_of_their_key_and_on_nothing_else() -> None:
    def drawn(*key: object) -> list[int]:
        return torch.randint(10**6, (3,), generator=seeded_generator(*key)).tolist()

    assert drawn(0, "sample", 1, 2) == [742934, 650718, 863985]
    assert drawn("0", "sample", "1", "2") == drawn(0, "sample", 1, 2)
    others = [(1, "sample", 1, 2), (0, "other", 1, 2), (0, "sample", 2, 1), (0, "sample", 12), (0, "sample1", 2)]
    assert len({tuple(drawn(*key)) for key in [(0, "sample", 1, 2), *others]}) == 6


@pytest.mark.end_to_end
def test_other_processes_agree() -> None:
    """Also with other hash seeds, on which the order of sets and the hash of texts depend."""
    code = (
        "from uniprune.utils.hashing import *; print(stable_hash({'b': [1, 'x'], 'a': 0.1}), "
        "seeded_generator(3, 'x').initial_seed())"
    )
    command = [sys.executable, "-c", code]
    found = {
        subprocess.run(
            command, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {f"{stable_hash({'a': 0.1, 'b': [1, 'x']})} {seeded_generator(3, 'x').initial_seed()}\n"}
