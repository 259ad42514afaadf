"""Prefills as CUDA graphs of all methods on one batch, measured in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from uniprune.errors import UserError
from uniprune.latency.graphs import PrefillGraphs
from uniprune.latency.options import BenchOptions
from uniprune.latency.prompts import Prompts
from uniprune.latency.rows import BenchRow, GraphResult
from uniprune.modeling.adapter import ModelAdapter
from uniprune.pruning.base import Pruner
from uniprune.utils.memory import is_out_of_memory

OUT_OF_MEMORY = "out of memory"
"""Refusal of graphs that are tried again: the machine may have more free memory next time."""


def lack_graphs(rows: Sequence[BenchRow]) -> bool:
    """Check whether measured rows lack graphs that another attempt may give them."""
    graphs = [row.graphs for row in rows if row.measured is not None]
    return any(one is None or one.refusal == OUT_OF_MEMORY for one in graphs)


@torch.inference_mode()
def with_graphs(
    rows: Sequence[BenchRow],
    pruners: Sequence[Pruner],
    adapter: ModelAdapter,
    prompts: Prompts,
    options: BenchOptions,
) -> list[BenchRow]:
    """Measure the prefills of methods as graphs, in turn; their memory is free again afterwards.

    Args:
        rows: of these prompts, the un-pruned model first; those that failed get none.
        pruners: the method of each row.
        adapter: the model's adapter.
        prompts: the batch.
        options: number of calls.
    """
    graphs: dict[int, PrefillGraphs] = {}
    refusals: dict[int, str] = {}
    for number, (row, pruner) in enumerate(zip(rows, pruners, strict=True)):
        try:
            if row.measured is not None:
                graphs[number] = PrefillGraphs.of(adapter, pruner, prompts)
        except UserError as error:
            refusals[number] = str(error)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            refusals[number] = OUT_OF_MEMORY
    seconds = _seconds_in_turn(graphs, options)
    segments = {number: graph.segments for number, graph in graphs.items()}
    graphs.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    vanilla = float(np.median(seconds[0])) if 0 in seconds else None
    results = {
        number: GraphResult(
            seconds=seconds.get(number, []),
            segments=segments.get(number, 0),
            refusal=refusals.get(number),
            vanilla=vanilla,
        )
        for number in [*seconds, *refusals]
    }
    return [row.with_graphs(results[number]) if number in results else row for number, row in enumerate(rows)]


def _seconds_in_turn(graphs: Mapping[int, PrefillGraphs], options: BenchOptions) -> dict[int, list[float]]:
    """Return the seconds of measured runs; graphs take turns, another one first each round."""
    numbers = list(graphs)
    seconds: dict[int, list[float]] = {number: [] for number in numbers}
    for call in range(options.warmup + options.repeats):
        turn = call % max(1, len(numbers))
        for number in numbers[turn:] + numbers[:turn]:
            taken = graphs[number].seconds()
            if call >= options.warmup:
                seconds[number].append(taken)
    return seconds
