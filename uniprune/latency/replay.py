"""Segments of a recorded prefill run again: by plain calls, or captured as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from uniprune.errors import UnsupportedError
from uniprune.latency.recorded_prefill import Call, Segment, State
from uniprune.utils.memory import is_out_of_memory

INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
"""Operations that depend on values if an index is a mask, and not otherwise."""
DEPENDENT = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
"""Marks of operations whose shape, or whose result on the host, depends on values."""

Run = Callable[[list[Any]], Tensor]
"""A segment's computation, given the states of a prefill."""


def run_segment(segment: Segment, states: list[Any]) -> Tensor:
    """Return the result of a segment's last module, [B, m, D]."""
    hidden = segment.entering
    for call in segment.calls:
        hidden = _result(call, hidden, states)
    return hidden


def check_calls(segments: Sequence[Segment], states: list[Any]) -> None:
    """Check, in a run of all segments, that no operation depends on values: a graph would repeat those of one prompt.

    On a GPU also that the host waits for none: a capture that fails would harm the allocator of the process.

    Raises:
        UnsupportedError: naming module and operation.
    """
    for segment in segments:
        hidden = segment.entering
        for call in segment.calls:
            with _Watch(type(call.module).__name__), _no_waiting(type(call.module).__name__, hidden.device):
                hidden = _result(call, hidden, states)


def _result(call: Call, hidden: Tensor, states: list[Any]) -> Tensor:
    def given(value: Any) -> Any:
        return states[value.number] if isinstance(value, State) else value

    hidden = hidden if call.last is None else hidden[:, -call.last :]
    call = call.mapped(given)
    output: Any = call.module(hidden, *call.args, **call.kwargs)
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result


@contextmanager
def _no_waiting(module: str, device: torch.device) -> Iterator[None]:
    """Refuse that the host waits for the GPU in the block."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        raise UnsupportedError(
            f"{module} waits for the GPU, and a graph cannot: {str(error).splitlines()[0]}"
        ) from error
    finally:
        torch.cuda.set_sync_debug_mode(before)


class _Watch(TorchDispatchMode):
    """Refuses operations that depend on values.

    Args:
        module: that runs in the `with` block.
    """

    def __init__(self, module: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no annotations there
        self._module = module

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with self:  # an operation made of others depends on values if one of those does
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        name = func._schema.name
        indexed = name in INDEXING and any(
            isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        )
        if indexed or (name not in INDEXING and DEPENDENT & set(func.tags)):
            raise UnsupportedError(
                f"{self._module} calls {name}, which depends on values: a graph would repeat those of these prompts"
            )
        return func(*args, **kwargs)


class Plain:
    """Runs segments by plain calls.

    Args:
        runs: the segments.
        fresh: makes the states of a prefill.
    """

    def __init__(self, runs: Sequence[Run], fresh: Callable[[], list[Any]]) -> None:
        self.runs, self.fresh = runs, fresh

    def __call__(self) -> list[Tensor]:
        """Return the segments' results."""
        states = self.fresh()
        return [run(states) for run in self.runs]


class Captured:
    """Runs segments as CUDA graphs.

    Args:
        plain: the segments and their states; they have run before, so that libraries have chosen their kernels.
        device: the GPU.

    Raises:
        UnsupportedError: they do something that a graph cannot hold.
    """

    def __init__(self, plain: Plain, device: torch.device) -> None:
        self._states = plain.fresh()  # keys and values in them are where the graphs write
        self._graphs: list[torch.cuda.CUDAGraph] = []
        self._results: list[Tensor] = []
        # A capture that fails leaves its stream the current one: the outer context restores the caller's.
        with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
            for run in plain.runs:
                self._capture(run)

    def __call__(self) -> list[Tensor]:
        """Return the segments' results; the next call overwrites them."""
        for graph in self._graphs:
            graph.replay()
        return self._results

    def _capture(self, run: Run) -> None:
        """Capture a segment into the memory of the first one: they are always replayed in this order.

        Torch's own stream for captures is used: libraries keep a workspace for every stream that they ever ran on.
        """
        graph = torch.cuda.CUDAGraph()
        pool = self._graphs[0].pool() if self._graphs else None
        try:
            with torch.cuda.graph(graph, pool=pool):
                result = run(self._states)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            cause = error.__context__ or error  # ending a capture that failed is a second error
            raise UnsupportedError(f"the layers cannot be captured: {str(cause).splitlines()[0]}") from error
        self._graphs.append(graph)
        self._results.append(result)
