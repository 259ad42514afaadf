"""Pictures reach the model as VLMEvalKit's own wrappers give them to theirs."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.image_processors import photo, real_processor
from uniprune.benchmarks._kit.boot import boot, untouched
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.processing import RequestEncoder
from uniprune.modeling.catalog import find_model
from uniprune.modeling.image_settings import with_settings
from uniprune.modeling.messages import Part

pytestmark = pytest.mark.end_to_end

SIZES = [(64, 20), (448, 172), (500, 375), (300, 900), (900, 900), (1920, 1080)]
Wrapper = Callable[..., list[np.ndarray]]


@pytest.fixture(scope="module")
def kit() -> SimpleNamespace:
    """The kit's modules of some families, imported without its model zoo."""
    boot()
    root = Path(sys.modules["vlmeval"].__path__[0])
    empty: dict[str, dict[str, Any]] = {"vlmeval.tools": {"cli": None}, "vlmeval.config": {"supported_VLM": {}}}
    empty["vlmeval.vlm"] = {"__path__": [str(root / "vlm")]}
    with untouched():
        for name, contents in empty.items():
            sys.modules[name] = types.ModuleType(name)
            vars(sys.modules[name]).update(contents)
        try:
            internvl, utils, qwen, qwen3 = (
                importlib.import_module(f"vlmeval.vlm.{name}")
                for name in ("internvl.internvl_chat", "internvl.utils", "qwen2_vl.model", "qwen3_vl.model")
            )
        finally:
            for name in empty:
                del sys.modules[name]
    return SimpleNamespace(internvl=internvl, load_image=utils.load_image, qwen=qwen, qwen3=qwen3)


def ours(name: str, benchmark: str, pictures: list[Image.Image]) -> dict[str, np.ndarray]:
    settings = find_model(name).image_settings(benchmark)
    encoder = RequestEncoder(with_settings(real_processor(name), settings.image_processor), settings=settings)
    parts = [*(Part(image=picture) for picture in pictures), Part(text="what")]
    row = encoder.encode(Request("0", lambda: parts, question="what"))
    assert row.error is None
    return row.inputs


def saved(pictures: list[Image.Image], folder: Path) -> list[str]:
    for i, picture in enumerate(pictures):
        picture.save(folder / f"{i}.png")
    return [str(folder / f"{i}.png") for i in range(len(pictures))]


@pytest.mark.parametrize("benchmark", TASKS)
def test_numbers_of_tiles_are_the_wrappers(benchmark: str, kit: SimpleNamespace) -> None:
    wrapper = kit.internvl.InternVLChat.__new__(kit.internvl.InternVLChat)
    wrapper.set_max_num(TASKS[benchmark].kit_name)
    settings = find_model("internvl3-8b").image_settings(benchmark)
    assert settings.image_processor["max_patches"] == wrapper.max_num
    assert settings.image_total["max_patches"] == wrapper.total_max_num
    assert settings.enlarge_first == 1 + ("MMMU" in TASKS[benchmark].kit_name)


@pytest.mark.parametrize("benchmark", TASKS)
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("qwen2.5-vl-7b", 256, 1280), ("qwen2-vl-7b", 1280, 16384)],  # the paper's, and the kit's registered ones
)
def test_pixel_limits_are_the_wrappers(benchmark: str, name: str, least: int, most: int, kit: SimpleNamespace) -> None:
    wrapper = kit.qwen.Qwen2VLChat.__new__(kit.qwen.Qwen2VLChat)
    vars(wrapper).update({"min_pixels": least * 28 * 28, "max_pixels": most * 28 * 28, "total_pixels": None})
    content = [{"type": "image", "value": "file:///x.png"}]
    [item] = wrapper._prepare_content(content, dataset=TASKS[benchmark].kit_name)
    size = find_model(name).image_settings(benchmark).image_processor["size"]
    assert size == {"shortest_edge": item["min_pixels"], "longest_edge": item["max_pixels"]}


@pytest.mark.sample(3)
@pytest.mark.parametrize("benchmark", ["pope", "chartqa", "mmmu", "ocrbench"])
@pytest.mark.parametrize("sizes", [[size] for size in SIZES] + [[(200, 150)] * 2, [(70, 10)] * 7, [(40, 10)] * 12])
def test_tiles_are_those_of_the_wrapper(
    benchmark: str, sizes: list[tuple[int, int]], kit: SimpleNamespace, tmp_path: Path
) -> None:
    wrapper = kit.internvl.InternVLChat.__new__(kit.internvl.InternVLChat)
    wrapper.set_max_num(TASKS[benchmark].kit_name)
    pictures = [photo(*size, seed=i) for i, size in enumerate(sizes)]
    most = max(1, min(wrapper.max_num, wrapper.total_max_num // len(pictures)))  # as its `generate_v2`
    theirs = np.concatenate(
        [
            kit.load_image(file, max_num=most, upscale=i == 0 and benchmark == "mmmu").numpy()
            for i, file in enumerate(saved(pictures, tmp_path))
        ]
    )
    pixels = ours("internvl3-8b", benchmark, pictures)["pixel_values"]
    assert pixels.shape == theirs.shape
    assert np.abs(pixels - theirs).mean() < 2e-3
    assert np.abs(pixels - theirs).max() < 0.05  # a step of 1/255, normalised, is 0.018


@pytest.mark.sample(2)
@pytest.mark.parametrize("benchmark", ["pope", "ocrbench"])
@pytest.mark.parametrize("size", SIZES)
def test_patches_are_those_of_the_wrapper(benchmark: str, size: tuple[int, int], tmp_path: Path) -> None:
    utils = pytest.importorskip("qwen_vl_utils")
    picture = photo(*size)
    [file] = saved([picture], tmp_path)
    least = 100 if benchmark == "ocrbench" else 256
    item = {"type": "image", "image": f"file://{file}", "min_pixels": least * 28 * 28, "max_pixels": 1280 * 28 * 28}
    [resized], _ = utils.process_vision_info([{"role": "user", "content": [item]}])
    theirs = real_processor("qwen2.5-vl-7b").image_processor(images=[resized], return_tensors="np")
    inputs = ours("qwen2.5-vl-7b", benchmark, [picture])
    assert inputs["image_grid_thw"].tolist() == theirs["image_grid_thw"].tolist()
    assert np.abs(inputs["pixel_values"] - theirs["pixel_values"]).mean() < 2e-3


@pytest.mark.parametrize("benchmark", TASKS)
def test_limits_that_a_wrapper_leaves_to_the_checkpoint(benchmark: str, kit: SimpleNamespace) -> None:
    """The kit registers Qwen3-VL without limits of pixels; its wrapper names one on OCRBench."""
    wrapper = kit.qwen3.Qwen3VLChat.__new__(kit.qwen3.Qwen3VLChat)
    vars(wrapper).update(min_pixels=None, max_pixels=None, total_pixels=None)
    content = [{"type": "image", "value": "file:///x.png"}]
    [item] = wrapper._prepare_content(content, dataset=TASKS[benchmark].kit_name)
    size = find_model("qwen3-vl-8b").image_settings(benchmark).image_processor.get("size", {})
    assert size.get("shortest_edge") == item.get("min_pixels")
    assert "max_pixels" not in item
    assert size.get("longest_edge", 16384 * 32 * 32) == 16384 * 32 * 32


@pytest.mark.sample(2)
@pytest.mark.parametrize("benchmark", ["pope", "ocrbench"])
@pytest.mark.parametrize("size", SIZES)
def test_patches_of_whole_tokens_are_those_of_the_wrapper(
    benchmark: str, size: tuple[int, int], tmp_path: Path
) -> None:
    """Resized to whole tokens by the kit's utilities, then by the checkpoint's processor, as its vLLM does."""
    utils = pytest.importorskip("qwen_vl_utils")
    picture = photo(*size)
    [file] = saved([picture], tmp_path)
    limits = {"min_pixels": 100 * 32 * 32} if benchmark == "ocrbench" else {}
    item = {"type": "image", "image": f"file://{file}", **limits}
    [resized], _ = utils.process_vision_info([{"role": "user", "content": [item]}], image_patch_size=16)
    theirs = real_processor("qwen3-vl-8b").image_processor(images=[resized], return_tensors="np")
    inputs = ours("qwen3-vl-8b", benchmark, [picture])
    counts = [int(grids.prod()) // 4 for grids in (inputs["image_grid_thw"], theirs["image_grid_thw"])]
    if size == (64, 20) and benchmark != "ocrbench":  # resized twice there: other sides, nearly the same area
        assert counts == [75, 72]
        return
    assert inputs["image_grid_thw"].tolist() == theirs["image_grid_thw"].tolist()
    assert np.abs(inputs["pixel_values"] - theirs["pixel_values"]).mean() < 2e-3


@pytest.mark.parametrize("size", SIZES)
def test_squares_are_those_of_llava(size: tuple[int, int]) -> None:
    """`process_images` with `image_aspect_ratio = "pad"`: pasted into the middle of a square of the mean colour."""
    picture, own = photo(*size), real_processor("llava-1.5-7b").image_processor
    side, (width, height) = max(size), size
    square = Image.new("RGB", (side, side), tuple(int(255 * mean) for mean in own.image_mean))
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    theirs = own(images=[square], return_tensors="np")["pixel_values"]
    pixels = ours("llava-1.5-7b", "pope", [picture])["pixel_values"]
    assert pixels.shape == theirs.shape == (1, 3, 336, 336)
    assert np.array_equal(pixels, theirs)
