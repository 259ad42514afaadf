"""Named models of published dimensions, without weights: they build, are tried variants, and take `bench`'s prompts."""

from __future__ import annotations

import pytest
import torch

from uniprune.engine import prune
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.modeling.catalog import catalog
from uniprune.modeling.context import context_length
from uniprune.modeling.families import find_adapter
from uniprune.modeling.placeholder_check import mismatch
from uniprune.modeling.random_weights import architectures, random_model
from uniprune.registry import MODELS

pytestmark = pytest.mark.end_to_end

NEED_VALUES = ("gemma4", "idefics3", "mistral3", "smolvlm")
"""Families whose towers read values of pixels or sizes, so that they are compared with the processor once loaded."""


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", architectures())
def test_a_named_model_takes_random_prompts(name: str) -> None:
    adapter = find_adapter(random_model(name, torch.bfloat16, "sdpa", "meta"))
    assert catalog()[name].family == adapter.model.config.model_type
    assert adapter.untried() is None
    size, tiles = adapter.image_of(adapter.usual_tokens)
    count = adapter.placeholders(size, tiles)
    context = context_length(adapter.decoder.config)
    assert context is not None
    assert count + 60 <= context
    ids = torch.full((1, count), adapter.visual_token_ids[0])
    vocabulary = adapter.model.get_input_embeddings().num_embeddings
    assert max(adapter.visual_token_ids) < vocabulary
    image = adapter.random_image(size, tiles, torch.Generator())
    if catalog()[name].family in NEED_VALUES:
        with pytest.raises(NotImplementedError, match=r"nonzero|item\(\)"):
            mismatch(adapter, {"input_ids": ids, **image})
    else:
        assert mismatch(adapter, {"input_ids": ids, **image}) is None
        assert "writes" in str(mismatch(adapter, {"input_ids": ids[:, 1:], **image}))
    with prune(adapter.model, DivPrune(ratio=0.5) >> FastV(ratio=0.5)):
        pass


def test_every_family_with_named_models_has_published_dimensions() -> None:
    """The other named models of a family are timed from a folder's config.json."""
    named = {entry.family for entry in catalog().values() if entry.family is not None}
    assert named == {fields["model_type"] for fields in architectures().values()}
    assert named <= set(MODELS.names())
