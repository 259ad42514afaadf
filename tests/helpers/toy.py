"""A small untrained causal model, its tokenizer and a few samples."""

from __future__ import annotations

from typing import Any

import torch

from uniprune.models.tiny.language import build_model, build_tokenizer
from uniprune.synthetic.letters import training_set
from uniprune.tuning.instruction_data import Problems, Sample, encode_rows

TOKENIZER = build_tokenizer()


def toy_model(width: int = 32, seed: int = 0, spread: float = 0.3) -> Any:
    """Build a model with random weights, large enough for different predictions."""
    model = build_model(seed, width=width, layers=2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, spread)
    return model.eval()


def toy_samples(count: int = 16, seed: int = 0) -> list[Sample]:
    """Load samples of the embedded set."""
    return encode_rows(training_set(640, seed)[:count], TOKENIZER, 2048, Problems())
