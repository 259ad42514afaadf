"""Greedy decoding, defined once for evaluation, `bench`, conformance and the tiny models."""

from __future__ import annotations

from typing import Any


def greedy(max_new_tokens: int) -> dict[str, Any]:
    """Return the arguments of `generate` under which it takes the most likely token at every step.

    Checkpoints ship sampling settings, some a repetition penalty; neither may change greedy decoding.
    """
    return {
        "max_new_tokens": max_new_tokens,
        "do_sample": False,
        "num_beams": 1,
        "temperature": None,
        "top_p": None,
        "top_k": None,
        "repetition_penalty": 1.0,
    }
