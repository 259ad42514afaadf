"""Methods that run the tower: their arguments are seen, their behaviour and the model are unchanged."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from uniprune.engine.encoder_arguments import EncoderArguments


class Encoder(nn.Module):
    def get_image_features(self, pixel_values: torch.Tensor, image_sizes: Any = None, **more: Any) -> Any:
        """Documented."""
        if image_sizes is None:
            raise ValueError("no sizes")
        return self, pixel_values, image_sizes, more


def test_arguments_are_shown_by_name_and_pixels_by_shape() -> None:
    module, shown = Encoder(), list[Mapping[str, Any]]()
    pixels = torch.zeros(2, 3)
    listener = EncoderArguments(module, "get_image_features", shown.append)
    assert module.get_image_features(pixels, [1, 2], return_dict=True) == (
        module,
        pixels,
        [1, 2],
        {"return_dict": True},
    )
    assert shown == [{"get_image_features": (2, 3), "image_sizes": [1, 2], "more": {"return_dict": True}}, {}]
    with pytest.raises(ValueError, match="no sizes"):
        module.get_image_features(pixels)
    assert shown[2:] == [{"get_image_features": (2, 3)}, {}]
    listener.remove()
    assert "get_image_features" not in vars(module)
    module.get_image_features(pixels, 1)
    assert len(shown) == 4


def test_the_method_keeps_its_signature_and_text() -> None:
    """`generate` chooses arguments by the signature."""
    module = Encoder()
    own = module.get_image_features
    EncoderArguments(module, "get_image_features", lambda given: None)
    assert inspect.signature(module.get_image_features) == inspect.signature(own)
    assert module.get_image_features.__doc__ == "Documented."


def test_a_copy_of_the_model_calls_its_own_method() -> None:
    module = Encoder()
    EncoderArguments(module, "get_image_features", _ignore)
    other = copy.deepcopy(module)
    assert other.get_image_features(torch.zeros(1), 1)[0] is other


def test_another_wrapper_on_the_instance_stays() -> None:
    module = Encoder()
    module.get_image_features = own = lambda pixel_values, image_sizes: "own"
    listener = EncoderArguments(module, "get_image_features", _ignore)
    assert module.get_image_features(torch.zeros(1), 1) == "own"
    listener.remove()
    assert module.get_image_features is own


def _ignore(given: Mapping[str, Any]) -> None:
    """Do nothing."""
