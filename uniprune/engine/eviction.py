"""After the prefill: cutting the KV cache of early layers to the tokens that later layers kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from uniprune.engine.host import to_device
from uniprune.engine.state import Kept, active
from uniprune.errors import UnsupportedError


def evict(cache: Any, first: int, stages: Sequence[Kept], whole: Kept) -> list[Kept]:
    """Gather the keys and values of layers `first` and later down to the survivors of the last stage.

    Keys keep the rotary phase of their original position, and generated tokens continue the original positions, so
    distances between what remains are those of the full prompt.

    Args:
        cache: KV cache of a finished prefill.
        first: first layer to cut.
        stages: what each stage kept, in layer order.
        whole: the un-pruned prompt, which layers before the first stage hold.

    Returns:
        The stages as decoding must see them: from `first` on, every layer holds the same tokens.

    Raises:
        UnsupportedError: a layer's keys are not a plain growing tensor (static or quantised caches).
    """
    last = stages[-1]
    if first >= last.layer:
        return list(stages)
    for number in range(first, last.layer):
        held = active(stages, number) or whole
        layer = cache.layers[number]
        keys = getattr(layer, "keys", None)
        if not isinstance(keys, Tensor) or keys.dim() != 4 or keys.shape[-2] != held.index.shape[1]:
            raise UnsupportedError(
                f"evicting tokens from the KV cache needs a DynamicCache, but layer {number} is a "
                f"{type(layer).__name__}; leave out cache_implementation or turn eviction off"
            )
        columns = to_device(held.columns(last.index), keys.device)[:, None, :, None]
        layer.keys = keys.gather(2, columns.expand(-1, keys.shape[1], -1, keys.shape[-1]))
        layer.values = layer.values.gather(2, columns.expand(-1, layer.values.shape[1], -1, layer.values.shape[-1]))
    before = [stage for stage in stages if stage.layer < first]
    return [*before, Kept(first, last.index, last.valid, last.lengths)]
