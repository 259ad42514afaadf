"""Lower bounds of the time, which no pruning lifts: the weights of the language model must be read."""

from __future__ import annotations

import time

import torch

from uniprune.modeling.adapter import ModelAdapter

SIZE = 2**28
"""Bytes copied: well beyond any cache."""


def copy_bandwidth(device: torch.device, repeats: int = 10) -> float:
    """Measure the bytes per second read and written by the fastest of several copies on the device itself."""
    source = torch.zeros(SIZE, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    seconds = [_copy(source, target) for _ in range(repeats + 1)]
    return 2 * SIZE / min(seconds[1:])  # the first one warms up


def _copy(source: torch.Tensor, target: torch.Tensor) -> float:
    """Return the seconds of one copy."""
    if not source.is_cuda:
        begin = time.perf_counter()
        target.copy_(source)
        return time.perf_counter() - begin
    with torch.cuda.device(source.device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def weight_bytes(adapter: ModelAdapter) -> int:
    """Count the bytes of weights that every forward of the language model reads: layers, final norm, output head."""
    modules = [*adapter.layers, adapter.decoder.norm, adapter.model.get_output_embeddings()]
    unique = {id(parameter): parameter for module in modules for parameter in module.parameters()}
    return sum(parameter.nbytes for parameter in unique.values())
