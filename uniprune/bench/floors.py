"""Lower bounds that no pruning lifts: the weights of the language model must be read."""

from __future__ import annotations

import time

import torch

from uniprune.family import Family

SIZES = {"cpu": 2**27, "cuda": 2**30}
"""Bytes copied: well beyond any cache."""


def copy_bandwidth(device: torch.device, repeats: int = 10) -> float:
    """Bytes per second read and written by the fastest of several copies on the device itself."""
    source = torch.zeros(SIZES[device.type], dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    seconds = []
    for _ in range(repeats + 1):  # the first one warms up
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            target.copy_(source)
            end.record()
            torch.cuda.synchronize(device)
            seconds.append(start.elapsed_time(end) / 1000)
        else:
            begin = time.perf_counter()
            target.copy_(source)
            seconds.append(time.perf_counter() - begin)
    return 2 * source.nbytes / min(seconds[1:])


def weight_bytes(family: Family) -> int:
    """Weights that every forward of the language model reads: layers, final norm and output head."""
    modules = [*family.layers, family.decoder.norm, family.model.get_output_embeddings()]
    unique = {id(parameter): parameter for module in modules for parameter in module.parameters()}
    return sum(parameter.nbytes for parameter in unique.values())
