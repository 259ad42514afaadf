"""`bench`: random prompts of an exact size, and floors. What is measured on them: tests/latency/test_bench.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.latency.test_bench import CPU, MODELS, words
from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.latency.floors import copy_bandwidth, weight_bytes
from uniprune.latency.prompts import random_prompts
from uniprune.latency.rows import BenchFile
from uniprune.latency.timed_model import load_timed
from uniprune.modeling.families import find_adapter
from uniprune.modeling.random_weights import random_model

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize("name", MODELS)
def test_random_prompts_have_exactly_what_was_asked_for(name: str) -> None:
    adapter = load_timed(name, random_weights=True, placement=CPU).adapter
    visual = 2 * adapter.usual_tokens
    prompts = random_prompts(adapter, batch=2, visual=visual, text=9, seed=0)
    ids = prompts.inputs["input_ids"]
    images = torch.isin(ids, torch.tensor(adapter.visual_token_ids))
    assert images.sum(1).tolist() == [visual] * 2
    assert ids.shape == (2, visual + 9)
    assert not torch.isin(ids[~images], torch.tensor(adapter.special_token_ids)).any()
    assert not torch.equal(ids[0], ids[1])
    again = random_prompts(adapter, batch=2, visual=visual, text=9, seed=0)
    assert all(torch.equal(value, again.inputs[key]) for key, value in prompts.inputs.items())
    assert prompts.samples[0].question is not None
    assert torch.equal(prompts.samples[0].question, ids[0, -5:])


@pytest.mark.parametrize(
    ("name", "usual", "tokens", "shape"),
    [
        ("llava-1.5-7b", 576, 1152, (2, 3, 336, 336)),
        ("internvl3-8b", 256, 1792, (7, 3, 448, 448)),
        ("qwen2.5-vl-7b", 256, 1280, (5120, 1176)),
        ("llava-next-7b-vicuna", 2880, 2304, (1, 5, 3, 336, 336)),
        ("llava-next-7b-mistral", 2880, 1728, (1, 5, 3, 336, 336)),
        ("llava-onevision-7b", 7290, 2187, (1, 37, 3, 384, 384)),
    ],
)
def test_images_of_published_models(name: str, usual: int, tokens: int, shape: tuple[int, ...]) -> None:
    adapter = find_adapter(random_model(name, torch.bfloat16, "sdpa", "meta"))
    assert adapter.usual_tokens == usual
    image = adapter.random_image(*adapter.image_of(tokens), torch.Generator())
    assert image["pixel_values"].shape == shape
    with pytest.raises(UserError, match=r"257 .*use"):
        adapter.image_of(257)


def test_llava_next_is_timed_on_prompts_with_row_ends(
    checkpoint: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every number of visual tokens it says it can make; the ledger counts them without the newline tokens."""
    folder = checkpoint("llava-next")
    adapter = load_timed(str(folder), random_weights=True, placement=CPU).adapter
    assert adapter.usual_tokens == 16 + 8 * 8
    possible = [16 + cells for cells in (8, 16, 24, 32, 48, 64)]
    for visual in possible:
        prompts = random_prompts(adapter, batch=2, visual=visual, text=9, seed=0)
        images = prompts.inputs["input_ids"] == adapter.visual_token_ids[0]
        assert int(images[0].sum()) == adapter.placeholders(*adapter.image_of(visual)) > visual
    arguments = ["--model", str(folder), "--method", "divprune", "--ratio", "0.25", "--batch", "2", "--tokens"]
    assert main(words(tmp_path, *arguments, *map(str, possible))) == 0
    for row in BenchFile(tmp_path / "bench.jsonl").rows.values():
        assert row.measured is not None
        assert row.setup.visual in possible
        ratio = 1 if row.setup.method.name == "none" else 0.25
        assert row.measured.layers == [row.setup.visual * ratio] * 6
    assert main(words(tmp_path, *arguments, "60")) == 2
    assert "no image has 60 visual tokens with LlavaNext; use 48 or 64" in capsys.readouterr().err


def test_weights_read_are_those_of_the_language_model() -> None:
    """15.2 GB in bfloat16 with the input embeddings, which are not read as a whole."""
    adapter = find_adapter(random_model("qwen2.5-vl-7b", torch.bfloat16, "sdpa", "meta"))
    assert (weight_bytes(adapter) + 2 * 152064 * 3584) / 1e9 == pytest.approx(15.23, abs=0.01)
    tied = find_adapter(random_model("qwen2.5-vl-3b", torch.bfloat16, "sdpa", "meta"))
    assert weight_bytes(tied) / 1e9 == pytest.approx(6.17, abs=0.01)  # its output head is the input embedding


def test_copy_bandwidth_is_that_of_this_machine() -> None:
    """Anything from a slow laptop to a fast server; a wrong unit is off by a thousand."""
    assert 1e8 < copy_bandwidth(torch.device("cpu"), repeats=2) < 2e12
