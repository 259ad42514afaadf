"""`bench`: mistakes of users are one clear line, before anything is measured."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.latency.test_bench import CPU, bench, words
from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.latency.rows import BenchFile
from uniprune.latency.timed_model import TimedModel, load_timed
from uniprune.modeling.adapter import ModelAdapter

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "qwen2.5-vl-7"], "unknown architecture 'qwen2.5-vl-7'; did you mean 'qwen2.5-vl-7b'"),
        (["--tokens", "100"], "use a multiple of 144"),
        (["--tokens", "0"], "--tokens 0 must be at least 1"),
        (["--batch", "0"], "--batch 0 must be at least 1"),
        (["--repeats", "0"], "--repeats 0 must be at least 1"),
        (["--text-tokens", "1"], "--text-tokens 1 must be at least 2"),
        (["--method", "divprun"], "did you mean 'divprune'"),
        (["--ratio", "2"], "outside (0, 1]"),
        (["--method", "fastv", "--layer", "6"], "outside the model's decoder layers 0..5"),
        (["--method", "fastv", "--protocol", "average", "--ratio", "0.1"], "prune earlier or keep more"),
        (["--plot", "picture.xyz"], "--plot picture.xyz"),
        (["--plot", "picture"], "as in picture.png"),
        (["--csv", "/proc/nowhere/bench.csv"], "cannot write /proc/nowhere/bench.csv"),
        (["--output", "tests"], "cannot write tests: it is a folder"),
        (["--seed", "99999999999999999999999"], "--seed 99999999999999999999999 must be from 0 to"),
        (["--model", "tiny-qwen2.5-vl", "tiny-llava", "--tokens", "100"], "use a multiple of 144"),
        (["--attn", "flash_attention_2"], "--attn flash_attention_2: "),
        (["--device", "cuda:9"], "cuda:9"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_get_one_clear_line(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tmp_path, "--method", "none", *more)) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: ")
    assert message in told


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"b\.jsonl line 1 is not a measured row"):
        BenchFile(tmp_path / "b.jsonl")


def test_a_plot_without_matplotlib_is_refused_before_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    assert main(words(tmp_path, "--plot", str(tmp_path / "b.png"))) == 2
    assert "--plot needs matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "bench.jsonl").exists()


def test_a_family_without_random_images_is_refused_by_name(tmp_path: Path) -> None:
    llava = load_timed("tiny-llava", random_weights=True, placement=CPU)

    class Unfinished(type(llava.adapter)):  # type: ignore[misc]
        usual_tokens, random_image = ModelAdapter.usual_tokens, ModelAdapter.random_image

    with pytest.raises(UserError, match="Unfinished cannot make random images"):
        bench(TimedModel("tiny", Unfinished(llava.adapter.model), "random", CPU), tmp_path / "b.jsonl")
