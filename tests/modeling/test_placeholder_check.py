"""Checkpoints whose configuration and processor disagree on images: refused before weights are read, in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import checkpoints
from tests.helpers.paths import PLUGINS
from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.loading import Placement, load, outline

pytestmark = pytest.mark.end_to_end

Folder = Callable[[str], Path]
CPU = Placement("float32", "sdpa", "cpu")
CONFIG, PROCESSOR = "config.json", "processor_config.json"
FAMILIES = ("llava", "llava-next", "internvl", "qwen2.5-vl", *checkpoints.PROCESSORS)
DISAGREE = "processor and model disagree on images: of a picture of 500x375 pixels "
COUNTS = DISAGREE + r"the processor writes \d+ placeholders and the model makes \d+ tokens"
PIXELS = DISAGREE + "the processor makes pixels that the model's tower does not take"
IDS = "the placeholder '<{}>' of the processor is token {}, but {}_token_id in config.json is 7"
CASES: list[tuple[str, str, str, Any, str]] = [
    ("llava", PROCESSOR, "patch_size", 6, f"{COUNTS}; they have .*patch_size 6 and patch_size 8"),
    ("llava", PROCESSOR, "vision_feature_select_strategy", "full", f"{COUNTS}.*select_strategy full and .* default"),
    ("llava", PROCESSOR, "image_processor.size", {"height": 64, "width": 64}, PIXELS),
    ("llava", CONFIG, "vision_config.image_size", 64, PIXELS),
    ("llava", CONFIG, "image_token_index", 7, IDS.format("image", 4, "image")),
    ("llava-next", PROCESSOR, "image_processor.image_grid_pinpoints", [[48, 96]], "image_grid_pinpoints is .*48, 96"),
    ("llava-next", CONFIG, "image_grid_pinpoints", [[96, 48], [48, 96]], "image_grid_pinpoints is .*cut in two ways"),
    ("llava-next", PROCESSOR, "patch_size", 6, COUNTS),
    ("llava-next", PROCESSOR, "vision_feature_select_strategy", "full", COUNTS),
    ("internvl", PROCESSOR, "image_seq_length", 36, f"{COUNTS}; they have .*image_seq_length 36 and image_seq_length"),
    ("internvl", CONFIG, "downsample_ratio", 0.25, f"{COUNTS}|{PIXELS}"),
    ("internvl", PROCESSOR, "image_processor.size", {"height": 48, "width": 48}, COUNTS),
    *(
        (family, PROCESSOR, f"image_processor.{name}", value, f"({COUNTS}|{PIXELS}).*; they have {name} {value} and ")
        for family in ("qwen2.5-vl", *checkpoints.PROCESSORS)
        for name, value in (("merge_size", 1), ("patch_size", 8), ("temporal_patch_size", 3))
    ),
    *(
        (family, CONFIG, f"{kind}_token_id", 7, IDS.format(kind, token, kind))
        for family in ("qwen2.5-vl", *checkpoints.PROCESSORS)
        for kind, token in (("image", 4), ("video", 5))
    ),
]


@pytest.fixture(scope="module")
def folder(checkpoint: Folder, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of a tiny checkpoint of any of `FAMILIES`."""
    root = tmp_path_factory.mktemp("more")

    def found(family: str) -> Path:
        if family not in checkpoints.PROCESSORS:
            return checkpoint(family)
        return root / family if (root / family).exists() else checkpoints.save(family, root / family)

    return found


def entry(path: Path) -> ModelEntry:
    return ModelEntry(name=str(path), source=str(path))


def edited(path: Path, to: Path, file: str, key: str, value: Any) -> Path:
    """Copy a checkpoint with another value at a dotted key of one of its files."""
    shutil.copytree(path, to)
    content = fields = json.loads((to / file).read_text())
    *outer, last = key.split(".")
    for name in outer:
        fields = fields[name]
    assert fields[last] != value
    fields[last] = value
    (to / file).write_text(json.dumps(content))
    return to


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_checkpoint_passes_without_weights(family: str, folder: Folder) -> None:
    assert outline(entry(folder(family)), CPU).compared


@pytest.mark.sample(2)
@pytest.mark.parametrize(("family", "file", "key", "value", "message"), CASES)
def test_disagreement_is_found_before_weights_are_read(
    family: str, file: str, key: str, value: Any, message: str, folder: Folder, tmp_path: Path
) -> None:
    path = edited(folder(family), tmp_path / "model", file, key, value)
    for weights in path.glob("*.safetensors"):
        weights.write_bytes(b"not read")
    with pytest.raises(UserError, match=message) as caught:
        outline(entry(path), CPU)
    assert "must be of one checkpoint" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_the_placeholder_is_named(folder: Folder, tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(folder("llava"), path)
    for file in ("tokenizer_config.json", "tokenizer.json"):
        (path / file).write_text(
            (path / file).read_text().replace("<image>", "<picture>").replace("image_token", "own")
        )
    with pytest.raises(UserError, match=r"the tokenizer lacks the processor's placeholder of images, '<image>'"):
        outline(entry(path), CPU)


@pytest.mark.parametrize("family", ["llava", "internvl", "qwen3_vl"])
def test_a_template_that_writes_no_image_is_named(family: str, folder: Folder, tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(folder(family), path)
    template = path / "chat_template.jinja"
    template.write_text(template.read_text().replace("<image>", ""))
    with pytest.raises(UserError, match=r"Found total 0 <image> tokens|writes 0 placeholders"):
        outline(entry(path), CPU)


def test_a_run_ends_with_one_line(folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = edited(folder("llava"), tmp_path / "model", PROCESSOR, "patch_size", 6)
    words = ["--plugin", str(PLUGINS / "small_benchmark.py"), "--model", str(path), "--method", "none", "fastv"]
    assert main([*words, "--data", "small", "--output", str(tmp_path / "out"), "--device", "cpu"]) == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    [line] = [line for line in printed.splitlines() if line.startswith("error")]
    assert line.startswith(f"error: {path}: processor and model disagree on images")
    assert not list((tmp_path / "out").glob("*/*.jsonl"))


def test_a_tower_that_needs_values_is_compared_with_its_weights(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boolean indexing has no result without values."""
    from transformers import LlavaForConditionalGeneration

    right = LlavaForConditionalGeneration.get_image_features

    def needy(self: Any, pixel_values: Any, **kwargs: Any) -> Any:
        return right(self, pixel_values[(pixel_values != 0).any((1, 2, 3))], **kwargs)

    monkeypatch.setattr(LlavaForConditionalGeneration, "get_image_features", needy)
    path = folder("llava")
    assert not outline(entry(path), CPU).compared
    assert load(entry(path), CPU).compared
    with pytest.raises(UserError, match=COUNTS):
        load(entry(edited(path, tmp_path / "model", PROCESSOR, "patch_size", 6)), CPU)


def test_kernels_that_need_a_device_are_not_run_without_one(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that fails on the meta device, as flash attention does, refuses no checkpoint."""
    from transformers import AttentionInterface

    def broken(*words: Any, **named: Any) -> Any:
        raise RuntimeError("no kernel for the meta device")

    AttentionInterface.register("needs_a_device", broken)
    assert outline(entry(folder("qwen2.5-vl")), Placement("float32", "needs_a_device", "cpu")).compared
    monkeypatch.setattr("uniprune.modeling.loading.WITHOUT_DEVICE", ("needs_a_device",))
    assert not outline(entry(folder("qwen2.5-vl")), Placement("float32", "needs_a_device", "cpu")).compared
