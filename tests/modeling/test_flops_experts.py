"""The cost of mixtures of experts, against torch's own counter, and refusals of what the count does not know."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, Qwen2MoeConfig, Qwen3MoeConfig

from uniprune.errors import UnsupportedError
from uniprune.modeling.flops import experts_per_token, products

SIZES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 50, "num_experts": 4,
    "num_experts_per_tok": 2,
}  # fmt: skip
ATTENTION, EXPERT = 16 * 16 + 2 * 16 * 8 + 16 * 16, 3 * 16 * 8


def layer(config: Any) -> Any:
    """The first decoder layer of a model, whose experts run one by one."""
    model = AutoModelForCausalLM.from_config(config, experts_implementation="eager")
    return model.get_decoder().layers[0]


@pytest.mark.parametrize(
    ("config", "shared"),
    [(Qwen3MoeConfig(**SIZES), 0), (Qwen2MoeConfig(**SIZES, shared_expert_intermediate_size=12), 3 * 16 * 12 + 16)],
    ids=["qwen3", "shared"],
)
def test_a_token_costs_its_experts(config: Any, shared: int) -> None:
    """By hand: attention, router, two experts of four, the shared one and its gate; and by torch."""
    one, tokens = layer(config), 5
    assert products(one, experts_per_token(config)) == ATTENTION + 4 * 16 + 2 * EXPERT + shared
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        one.mlp(torch.randn(1, tokens, 16))
    assert counter.get_total_flops() == 2 * tokens * products(one.mlp, 2)


class Lists(nn.Module):
    """Experts as a list of modules, as older checkpoints' own code has them."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(16, 8) for _ in range(4))


def test_experts_as_a_list_are_counted_in_part() -> None:
    assert products(Lists(), 3) == 3 * 16 * 8


def test_experts_are_refused_if_the_number_a_token_uses_is_unknown() -> None:
    with pytest.raises(UnsupportedError, match=r"Experts cannot be counted.*num_experts_per_tok"):
        products(layer(Qwen3MoeConfig(**SIZES)))


class Matrix(nn.Module):
    """A product that no layer of torch does."""

    def __init__(self, name: str, *shape: int) -> None:
        super().__init__()
        self.register_buffer(name, torch.zeros(*shape, dtype=torch.int32))


def test_an_unknown_kind_of_weight_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"of Matrix cannot be counted: it holds qweight \[16, 8\], and only"):
        products(nn.Sequential(nn.Linear(2, 2), Matrix("qweight", 16, 8)))
    with pytest.raises(UnsupportedError, match=r"of Matrix cannot be counted: it holds blocks \[4, 8, 2, 2\]"):
        products(nn.ModuleDict({"experts": Matrix("blocks", 4, 8, 2, 2)}), 2)


def test_what_is_added_or_looked_up_costs_nothing() -> None:
    assert products(nn.Sequential(Matrix("positions", 1, 16, 8), nn.Embedding(9, 8), nn.LayerNorm(8))) == 0
