"""Packed rows: samples concatenated in one row, separated by their position ids, so that nearly nothing is padding."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from uniprune.tuning.instruction_data import Sample


def pack(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Distribute samples over rows of at most `row_tokens` tokens: longest first, into the first row with room.

    Returns:
        Sample numbers of each row; a sample longer than `row_tokens` has a row of its own.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = next((r for r, left in enumerate(room) if left >= lengths[i]), None)
        if fits is None:
            rows.append([])
            room.append(row_tokens)
            fits = len(rows) - 1
        rows[fits].append(i)
        room[fits] -= lengths[i]
    return rows


def packed_inputs(rows: Sequence[Sequence[Sample]], device: torch.device) -> dict[str, Tensor]:
    """Return [R, W] input ids and position ids of packed rows.

    A row shorter than the longest one is filled with a sequence of its own, which no sample attends to.
    """
    width = _width(rows)
    ids, positions = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(2))
    for r, row in enumerate(rows):
        used = sum(len(sample.ids) for sample in row)
        ids[r, :used] = torch.cat([sample.ids for sample in row])
        filler = [torch.arange(width - used)]
        positions[r] = torch.cat([torch.arange(len(sample.ids)) for sample in row] + filler)
    return {"input_ids": ids.to(device), "position_ids": positions.to(device)}


def predicting_positions(rows: Sequence[Sequence[Sample]]) -> Tensor:
    """Return the positions in the flattened rows whose hidden states predict answer tokens, in order."""
    width = _width(rows)
    positions = []
    for r, row in enumerate(rows):
        start = r * width
        for sample in row:
            positions.append(start + sample.answer - 1)
            start += len(sample.ids)
    return torch.cat(positions)


def row_loss(model: Any, row: Sequence[tuple[Sample, float]]) -> Tensor:
    """Return the sum of weighted cross-entropies over the answer tokens of one packed row of (sample, weight)."""
    samples = [sample for sample, _ in row]
    device = next(model.parameters()).device
    positions = predicting_positions([samples]).to(device)
    forward = base_model(getattr(model, "module", model)).forward
    # Only the logits that predict answer tokens are computed where the model can leave out the others.
    sparse = "logits_to_keep" in inspect.signature(forward).parameters
    extra = {"logits_to_keep": positions} if sparse else {}
    logits = model(**packed_inputs([samples], device), use_cache=False, **extra).logits[0]
    targets = torch.cat([sample.ids[sample.answer] for sample in samples]).to(device)
    weights = torch.cat([torch.full((len(sample.answer),), weight) for sample, weight in row]).to(device)
    losses = cross_entropy((logits if sparse else logits[positions]).float(), targets, reduction="none")
    return (losses * weights).sum()


def base_model(model: Any) -> Any:
    """Return the transformers model inside PEFT, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _width(rows: Sequence[Sequence[Sample]]) -> int:
    return max(sum(len(sample.ids) for sample in row) for row in rows)
