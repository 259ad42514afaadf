"""The key "uniprune" of a configuration: what can be served starts, all else is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import uniprune_vllm
from uniprune_vllm.settings import method_of

from uniprune.errors import UnsupportedError, UserError


class Config:
    """A configuration as transformers has it."""

    model_type = "made_up"
    num_hidden_layers = 6

    def __init__(self, given: Any, axes: bool = False) -> None:
        self.uniprune, self.rope_parameters = given, {"mrope_section": [8, 4, 4]} if axes else {}

    def get_text_config(self) -> Config:
        return self


@pytest.mark.parametrize(
    ("given", "axes", "ratio", "positions"),
    [
        ({"method": "divprune", "ratio": 0.25}, False, 0.25, "compact"),
        ({"method": "divprune", "ratio": 0.25, "positions": "original"}, False, 0.25, "original"),
        ({"method": "divprune", "ratio": 0.25}, True, 0.25, "original"),
        ({"method": "divprune", "ratio": 0.25, "positions": "vllm"}, True, 0.25, "vllm"),
        ({"method": "cdpruner"}, False, 1.0, "compact"),
    ],
)
def test_methods_that_can_be_served(given: dict[str, Any], axes: bool, ratio: float, positions: str) -> None:
    pruner = method_of(Config(given, axes))
    assert (pruner.ratio, pruner.positions) == (ratio, positions)


def test_published_names_are_what_they_mean() -> None:
    pruner = method_of(Config({"method": "fastervlm", "ratio": 0.5}))
    assert vars(pruner)["important"] == 1


@pytest.mark.parametrize(
    ("given", "axes", "message"),
    [
        (None, False, "uniprune=None; expected a method"),
        ({"ratio": 0.5}, False, "expected a method"),
        ({"method": "divprun"}, False, "did you mean 'divprune'"),
        ({"method": "divprune", "ratio": 0}, False, "keep ratio 0 is outside"),
        ({"method": "divprune", "rate": 0.5}, False, "unknown field of method 'divprune': 'rate'"),
        ({"method": "fastv", "ratio": 0.5}, False, "'fastv' cannot be served: it prunes before decoder layer 2"),
        ({"method": "pyramiddrop", "ratio": 0.5}, False, "cannot be served: it prunes before decoder layer"),
        ({"method": "prumerge", "adaptive": True, "ratio": 0.5}, False, "chooses its number of tokens"),
        ({"method": "divprune", "ratio": 0.5, "scope": "prompt"}, False, "all images of a prompt together"),
        ({"method": "resize", "ratio": 0.5}, False, "changes images before they are processed"),
        ({"method": "tome", "ratio": 0.5}, False, "acts inside the vision tower"),
        ({"method": "divprune", "positions": "compact"}, True, "use one of original, vllm"),
        ({"method": "divprune", "positions": "vllm"}, False, "use one of compact, original"),
        ({"method": "duet-vlm", "ratio": 0.5}, False, "cannot be served: it is several methods"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(given: Any, axes: bool, message: str) -> None:
    with pytest.raises(UserError, match=message):
        method_of(Config(given, axes))


def test_another_release_of_vllm_is_refused() -> None:
    uniprune_vllm.check_release(uniprune_vllm.VLLM)
    uniprune_vllm.check_release(f"{uniprune_vllm.VLLM}+cpu")
    with pytest.raises(UnsupportedError, match=r"extends vLLM 0\.32\.0, but vLLM 0\.33\.1 is installed"):
        uniprune_vllm.check_release("0.33.1")
