"""Names of models: entries, hub ids, addresses and folders, and whose settings they take."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import pytest

from uniprune.errors import UserError
from uniprune.modeling.catalog import catalog, find_model, unused_settings
from uniprune.registry import BENCHMARKS, MODELS


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models file in the place of the repository's."""
    (tmp_path / "configs").mkdir()
    path = tmp_path / "configs" / "models.yaml"
    monkeypatch.setattr("uniprune.modeling.catalog.catalog", lambda: catalog(path))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen2.5-VL-7B-Instruct",
        "qwen/qwen2.5-vl-7b-instruct",
        "Qwen/Qwen2.5-VL-7B-Instruct/",
        "https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct",
        "hf.co/Qwen/Qwen2.5-VL-7B-Instruct/tree/main",
    ],
)
def test_a_hub_id_of_an_entry_is_that_entry(name: str) -> None:
    assert find_model(name) == find_model("qwen2.5-vl-7b")


def test_another_hub_id_is_a_model_of_its_own() -> None:
    entry = find_model("https://huggingface.co/Qwen/Qwen2.5-VL-72B-Instruct/")
    assert (entry.name, entry.source) == ("Qwen/Qwen2.5-VL-72B-Instruct",) * 2
    assert (entry.prompts, entry.images, entry.plain()) == ("benchmark", "checkpoint", {})
    for name in ("a/b/c", "./a/b", "https://huggingface.co/a/b/tree/old", "https://example.org/a/b"):
        with pytest.raises(UserError, match="unknown model"):
            find_model(name)


@pytest.mark.parametrize("like", ["qwen2.5-vl-7b", "Qwen/Qwen2.5-VL-7B-Instruct"])
@pytest.mark.parametrize("name", [".", "somebody/qwen-tuned", "tiny-llava"])
def test_like_takes_the_settings_of_an_entry(name: str, like: str) -> None:
    own, other = find_model(name), find_model("qwen2.5-vl-7b")
    entry = find_model(name, like)
    assert (entry.name, entry.source, entry.like) == (own.name, own.source, "qwen2.5-vl-7b")
    assert entry.model_dump(exclude={"name", "source", "like"}) == other.model_dump(exclude={"name", "source", "like"})
    assert entry.image_settings("ocrbench") == other.image_settings("ocrbench") != other.image_settings("pope")


@pytest.mark.parametrize("like", ["qwen2.5-vl-8b", "a/b", "."])
def test_like_takes_entries_only(like: str) -> None:
    with pytest.raises(UserError, match="unknown model"):
        find_model(".", like)


def test_entries_may_be_like_others(models: Path) -> None:
    models.write_text("""
a: {source: o/a, prompts: family, suite: mini, image_processor: {x: 1}}
b: {source: o/b, like: a, suite: ten}
c: {source: o/c, like: b}
""")
    one = find_model("c")
    assert (one.source, one.suite, one.prompts, one.images, one.like) == ("o/c", "ten", "family", "paper", None)
    assert one.image_processor == {"x": 1}
    for table, message in [("a: {source: o/a, like: b}", "'b' is no entry"), ("a: {like: a}", "'a' is a circle")]:
        models.write_text(table)
        with pytest.raises(UserError, match=message):
            find_model("a")


def test_a_source_of_several_entries_is_ambiguous(models: Path) -> None:
    models.write_text("a: {source: o/m}\nb: {source: o/M, prompts: family}\n")
    with pytest.raises(UserError, match=r"source of several entries .* a, b"):
        find_model("o/m")
    assert find_model("b").prompts == "family"


def test_a_folder_without_settings_of_its_family_is_named() -> None:
    folder = find_model(".")
    text = unused_settings(folder, "internvl", "benchmark")
    assert text is not None
    for part in ("prompts=benchmark, images=checkpoint", "internvl3-8b", "prompts=family, images=paper", "--like NAME"):
        assert part in text
    assert unused_settings(folder, "blip", "benchmark") is None
    assert unused_settings(find_model(".", "internvl3-8b"), "internvl", "benchmark") is None
    assert unused_settings(find_model("internvl3-8b").with_images("checkpoint"), "internvl", "benchmark") is None


UNNAMED = {"glm4v", "glm4v_moe", "glm46v", "llava_next_video", "qwen3_5", "qwen3_5_moe"}
"""Families without a name: answers of GLM and Qwen3.5 would have to be cut out of what the models think first, and
VLMEvalKit has no wrapper of LLaVA-NeXT-Video."""


def test_the_catalogue_names_families_and_benchmarks_that_exist() -> None:
    entries = catalog().values()
    assert {entry.family for entry in entries if entry.suite == "ten"} == set(MODELS.names()) - UNNAMED
    assert {entry.images for entry in entries if entry.suite == "ten"} == {"paper"}
    patterns = {pattern for entry in entries for pattern in entry.benchmarks}
    assert [one for one in patterns if not fnmatch.filter(BENCHMARKS.names(), one)] == []
