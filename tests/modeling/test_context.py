"""The context of a decoder, from configurations as transformers reads them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import Gemma3TextConfig, LlamaConfig, LlavaConfig

from tests.helpers.tiny import FAMILIES, build
from uniprune.modeling.context import context_length
from uniprune.modeling.families import find_adapter


def llama(stated: int, **rotary: Any) -> LlamaConfig:
    return LlamaConfig(max_position_embeddings=stated, rope_parameters={"rope_theta": 10000.0, **rotary})


@pytest.mark.parametrize(
    ("config", "length"),
    [
        (LlamaConfig(max_position_embeddings=4096), 4096),
        (llama(4096, rope_type="linear", factor=4.0), 16384),
        (llama(32768, rope_type="dynamic", factor=2.0), 65536),
        (llama(32768, rope_type="yarn", factor=4.0, original_max_position_embeddings=32768), 131072),
        (llama(131072, rope_type="yarn", factor=4.0, original_max_position_embeddings=32768), 131072),
        (llama(131072, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
               original_max_position_embeddings=8192), 131072),
        (SimpleNamespace(max_position_embeddings=128000, rope_parameters={"type": "mrope"}), 128000),
        (SimpleNamespace(max_position_embeddings=4096), 4096),
        (SimpleNamespace(max_position_embeddings=4096, rope_parameters={"rope_type": "spiral", "factor": 2}), None),
        (SimpleNamespace(max_position_embeddings=None), None),
        (SimpleNamespace(), None),
    ],
)  # fmt: skip
def test_scaling_extends_what_is_stated_and_unknown_kinds_say_nothing(config: Any, length: int | None) -> None:
    assert context_length(config) == length


def test_layers_of_several_kinds_have_the_shortest_of_their_contexts() -> None:
    """The full attention of Gemma 3 states its stretched context, and its other layers are not stretched at all."""
    config = Gemma3TextConfig(max_position_embeddings=131072)
    config.rope_parameters["full_attention"] |= {"rope_type": "linear", "factor": 8.0}
    assert context_length(config) == 131072


@pytest.mark.parametrize("family", FAMILIES)
def test_the_decoder_is_configured_inside_the_models_configuration(family: str) -> None:
    assert context_length(find_adapter(build(family)).decoder.config) == 2048
    assert context_length(LlavaConfig()) is None
