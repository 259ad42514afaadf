"""Image settings of models and benchmarks: what they do to a picture, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.helpers.image_processors import FAMILIES, photo, real_processor
from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.processing import EncodedRequest, RequestEncoder
from uniprune.modeling.catalog import ModelEntry, find_model
from uniprune.modeling.image_check import check_image_settings
from uniprune.modeling.image_settings import ImageSettings, enlarged, for_images, with_settings
from uniprune.modeling.messages import Part
from uniprune.models.tiny.build import build_processor

pytestmark = pytest.mark.end_to_end


def entry(**fields: Any) -> ModelEntry:
    return ModelEntry(name="x", source="a/x", **fields)


def row(name: str, benchmark: str, *sizes: tuple[int, int]) -> EncodedRequest:
    """A row of a benchmark about pictures, encoded for a model of the catalogue."""
    settings = find_model(name).image_settings(benchmark)
    encoder = RequestEncoder(with_settings(real_processor(name), settings.image_processor), settings=settings)
    parts = [*(Part(image=photo(*size)) for size in sizes), Part(text="what")]
    return encoder.encode(Request("0", lambda: parts, question="what"))


def visual_tokens(name: str, benchmark: str, *sizes: tuple[int, int]) -> int:
    encoded, tokenizer = row(name, benchmark, *sizes), real_processor(name).tokenizer
    assert encoded.error is None
    return int((encoded.inputs["input_ids"] == tokenizer.convert_tokens_to_ids("<image>")).sum())


@pytest.mark.parametrize(
    ("name", "benchmark", "sizes", "tokens"),
    [
        ("internvl3-8b", "pope", [(500, 375)], 7 * 256),
        ("internvl3-8b", "chartqa", [(500, 375)], 13 * 256),
        ("internvl3-8b", "pope", [(448, 448)] * 2, 2 * 256),
        ("internvl3-8b", "pope", [(40, 10)] * 13, 13 * 5 * 256),  # 64 // 13 = 4 tiles and a thumbnail each
        ("internvl3-8b", "mmmu", [(70, 10)] * 7, 7 * 8 * 256),  # 64 // 7 = 9, of which 7 fit
        ("qwen2.5-vl-7b", "pope", [(64, 20)], 261),
        ("qwen2.5-vl-7b", "ocrbench", [(64, 20)], 108),
        ("qwen2.5-vl-7b", "ocrbench", [(448, 172)], 119),
        ("qwen2.5-vl-7b", "pope", [(500, 375)], 266),
        ("qwen2.5-vl-7b", "pope", [(4000, 3000)], 1230),
        ("qwen3-vl-8b", "pope", [(64, 20)], 75),
        ("qwen3-vl-8b", "ocrbench", [(64, 20)], 108),
        ("qwen3-vl-8b", "pope", [(640, 480)], 300),
        ("qwen3-vl-8b", "pope", [(1920, 1080)], 2040),
        ("llava-1.5-7b", "pope", [(640, 480)], 576),
    ],
)
def test_visual_tokens_are_those_of_the_papers_harness(
    name: str, benchmark: str, sizes: list[tuple[int, int]], tokens: int
) -> None:
    assert visual_tokens(name, benchmark, *sizes) == tokens


@pytest.mark.sample(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_setting_of_the_catalogue_acts_on_the_published_processor(name: str) -> None:
    check_image_settings(real_processor(name), find_model(name))


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("internvl", {"max_num": 6}, "'max_num' is unknown to GotOcr2ImageProcessor.*did you mean .*max_patches"),
        (
            "internvl",
            {"size": {"height": 96}},
            r"size: \{height: 96\} fails .*it has .*size: \{height: 96, width: 96\}",
        ),
        ("internvl", {"max_patches": "six"}, "max_patches: .*fails"),
        ("internvl", {"crop_to_patches": False}, "crop_to_patches=False has no effect"),
        ("llava", {"do_pad": True}, "do_pad=True has no effect"),
        ("llava", {"image_processor_type": "LlavaProcesor"}, "'LlavaProcesor' is unknown to transformers"),
        ("llava", {"shortest_edge": 32}, r"did you mean size: \{height, width\}|unknown to CLIP"),
        ("qwen2.5-vl", {"size": {"longest_edge": 999}}, "fails .*shortest_edge.*it has .*shortest_edge: 9216"),
        ("qwen2.5-vl", {"min_pixels": 64}, r"min_pixels=64 is not .*write size: \{.*shortest_edge: 64\}"),
        ("qwen2.5-vl", {"max_pixels": 9999}, r"write size: \{longest_edge: 9999, shortest_edge: 9216\}"),
        ("qwen2.5-vl", {"longest_edge": 1}, r"did you mean size: \{"),
    ],
)
def test_settings_without_effect_or_that_fail_are_refused(family: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_image_settings(build_processor(family), entry(image_processor=settings))


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("internvl", {"image_processor": {"max_patches": 12}}),  # the checkpoint's own value
        ("internvl", {"image_processor": {"crop_to_patches": True}}),  # what the processor passes in any case
        ("internvl", {"image_processor": {"max_patches": 6}, "image_total": {"max_patches": 20}, "enlarge_first": 3}),
        ("llava", {"image_processor": {"image_processor_type": "LlavaImageProcessor", "do_pad": True}}),
        ("qwen2.5-vl", {"image_processor": {"size": {"shortest_edge": 64, "longest_edge": 9216}}}),
        ("internvl", {"image_processor": {"max_num": 6}, "images": "checkpoint"}),  # not used
    ],
)
def test_settings_that_act_or_hold_already_are_accepted(family: str, fields: dict[str, Any]) -> None:
    check_image_settings(build_processor(family), entry(**fields))


def test_settings_of_benchmarks_are_checked_as_well() -> None:
    processor = build_processor("internvl")
    for benchmarks, message in [
        (
            {"ocrbnech": {"image_processor": {"max_patches": 24}}},
            "unknown benchmark 'ocrbnech'.*did you mean 'ocrbench'",
        ),
        ({"ocrbench": {"image_processor": {"max_num": 24}}}, "of model 'x' for ocrbench: 'max_num' is unknown"),
        ({"ocrbench": {"image_total": {"size": 2}}}, "for ocrbench: 'size' of image_total is no limit"),
    ]:
        with pytest.raises(UserError, match=message):
            check_image_settings(processor, entry(benchmarks=benchmarks))
    with pytest.raises(ValidationError, match="max_patches"):
        entry(benchmarks={"ocrbench": {"max_patches": 24}})


def test_a_processor_with_settings_is_a_copy() -> None:
    processor = build_processor("internvl")
    changed = with_settings(processor, {"max_patches": 2})
    assert (processor.image_processor.max_patches, changed.image_processor.max_patches) == (12, 2)
    assert changed.tokenizer is processor.tokenizer
    assert with_settings(processor, {}) is processor
    assert for_images(processor, {"max_patches": 24}, 2) is processor
    assert for_images(processor, {"max_patches": 24}, 5).image_processor.max_patches == 4
    assert for_images(processor, {"max_patches": 24}, 99).image_processor.max_patches == 1


def test_only_the_first_picture_is_enlarged() -> None:
    parts = [Part(text="a"), Part(image=photo(9, 7)), Part(image=photo(9, 7))]
    sizes = [part.image.size for part in enlarged(parts, 2) if part.image]
    assert sizes == [(18, 14), (9, 7)]
    assert enlarged(parts, 1) is parts
    assert enlarged(parts[:1], 2) == parts[:1]


def test_settings_of_a_benchmark_take_the_place_of_the_models() -> None:
    model = entry(
        image_processor={"a": 1, "b": 1},
        benchmarks={"mini-*": {"image_processor": {"b": 2}}, "mini-mme": {"enlarge_first": 2}},
    )
    assert model.images == "paper"
    assert model.image_settings("pope") == model.image_settings() == ImageSettings(image_processor={"a": 1, "b": 1})
    assert model.image_settings("mini-pope").image_processor == {"a": 1, "b": 2}
    assert model.image_settings("mini-mme").plain() == {"image_processor": {"a": 1, "b": 2}, "enlarge_first": 2}
    assert model.with_images("checkpoint").image_settings("mini-mme") == ImageSettings()
    assert model.with_images("checkpoint").with_images("paper") == model.with_images(None) == model
    with pytest.raises(UserError, match=r"no paper's image settings are known for model 'x'.*--like NAME"):
        entry().with_images("paper")
