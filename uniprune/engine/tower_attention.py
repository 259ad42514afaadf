"""Attention that patches of a vision tower receive and emit: sums of columns and rows of a softmax, none stored whole.

On the CPU, and where Triton is missing, a block of query rows at a time; on CUDA devices in two kernels
(`uniprune.engine.tower_attention_triton`) that store no row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from uniprune.engine.host_copy import to_device
from uniprune.modeling.adapter import Span
from uniprune.utils.kernels import proven

CPU_BYTES, GPU_BYTES = 2**20, 2**25
"""Size of a block of a tower's attention: what a cache holds, so that passing over it several times is cheap."""
FUSED = {torch.float16: 1e-3, torch.bfloat16: 1e-3, torch.float32: 1e-4}
"""Precisions that the kernels take, and how far they may be from float64, relative to the mean, at their first use."""
WIDEST = 128
"""Largest head that the kernels take."""


def exchanged(query: Tensor, key: Tensor, scale: float, spans: Sequence[Span], skip: int) -> Tensor:
    """Return [B, S, 2] attention each position emits to, and receives from, positions of its span; heads averaged.

    The first `skip` positions take part in the softmax but in neither mean (nothing is renormalised); their own two
    values are 0. Arguments as in `received`.
    """
    if fused(query):
        return torch.stack(_fused(query, key, scale, spans, skip), dim=-1)
    return _exchanged(query, key, scale, spans, skip)


def received(query: Tensor, key: Tensor, scale: float, spans: Sequence[Span]) -> Tensor:
    """Return [B, S] attention each position receives, mean over heads and over the queries of its span.

    `query` and `key` are [B, heads, S, d] and not yet scaled; `spans` are ranges that cover S and attend to themselves
    only.
    """
    return _fused(query, key, scale, spans, 0)[1] if fused(query) else _received(query, key, scale, spans)


def from_others(query: Tensor, key: Tensor, scale: float, spans: Sequence[Span], skip: int) -> Tensor:
    """Return [B, S] attention each position receives from the others of its span, mean over heads and these.

    Arguments as in `exchanged`.
    """
    sums, own = [query.new_zeros(query.shape[0], skip, dtype=torch.float32)], exchanged(query, key, scale, spans, skip)
    for start, stop in spans:
        first = max(start, skip)
        itself = _to_itself(query[:, :, first:stop], key[:, :, start:stop], scale, first - start)
        sums.append((own[:, first:stop, 1] * (stop - first) - itself) / max(1, stop - first - 1))
    return torch.cat(sums, dim=1).clamp(min=0)


def _to_itself(query: Tensor, key: Tensor, scale: float, skip: int) -> Tensor:
    """Return [B, R] attention of `query` [B, heads, R, d] to itself, of keys after the first `skip`; heads averaged."""
    parts, done = [], skip
    for block in _attention(query, key, scale):
        parts.append(block.mean(1).diagonal(done, -2, -1))
        done += block.shape[2]
    return torch.cat(parts, dim=-1)


def fused(query: Tensor) -> bool:
    """Return whether GPU kernels compute the attention of `query` [B, heads, S, d].

    They need a CUDA device, Triton (part of torch's CUDA builds) and a precision of up to 32 bits; in float64 a test
    compares devices.
    """
    takes = query.is_cuda and query.dtype in FUSED and query.shape[-1] <= WIDEST and find_spec("triton") is not None
    return takes and _proven(query.device, query.dtype, query.shape[-1])


def _exchanged(query: Tensor, key: Tensor, scale: float, spans: Sequence[Span], skip: int) -> Tensor:
    """Return what `exchanged` does, block by block."""
    parts = [query.new_zeros(query.shape[0], skip, 2, dtype=torch.float32)]
    for start, stop in spans:
        first, emitted = max(start, skip), []
        total = query.new_zeros(query.shape[0], stop - first, dtype=torch.float32)
        for block in _attention(query[:, :, first:stop], key[:, :, start:stop], scale):
            weights = block.mean(1)[..., first - start :]
            emitted.append(weights.sum(-1))
            total += weights.sum(1)
        parts.append(torch.stack((torch.cat(emitted, dim=-1), total), dim=-1) / (stop - first))
    return torch.cat(parts, dim=1)


def _received(query: Tensor, key: Tensor, scale: float, spans: Sequence[Span]) -> Tensor:
    """Return what `received` does, block by block."""
    columns = []
    for start, stop in spans:
        total = query.new_zeros(query.shape[0], stop - start, dtype=torch.float32)
        for block in _attention(query[:, :, start:stop], key[:, :, start:stop], scale):
            total += block.sum(dim=(1, 2))
        columns.append(total / (query.shape[1] * (stop - start)))
    return torch.cat(columns, dim=-1)


def _attention(query: Tensor, key: Tensor, scale: float) -> Iterator[Tensor]:
    """Yield [B, heads, r, n] float32 probabilities of a few rows of `query` [B, heads, R, d] on `key` [.., n, d]."""
    batch, heads, length = key.shape[:3]
    step = (GPU_BYTES if key.is_cuda else CPU_BYTES) // (4 * batch * heads * length)
    keys, nothing = key.flatten(0, 1).transpose(-1, -2), key.new_empty(1, 1, 1)
    for rows in query.flatten(0, 1).split(max(1, step), dim=1):
        logits = torch.baddbmm(nothing, rows, keys, beta=0, alpha=scale)
        yield logits.softmax(-1, dtype=torch.float32).unflatten(0, (batch, heads))


def _fused(
    query: Tensor, key: Tensor, scale: float, spans: Sequence[Span], skip: int, rows: int = 0
) -> tuple[Tensor, Tensor]:
    """Return [B, S] emitted and received attention, by the kernels; `rows` is the size of a tile, 0 for the usual."""
    from uniprune.engine import tower_attention_triton as kernels

    rows = rows or kernels.rows(query.dtype)
    tiles = [(start, stop, first) for start, stop in spans for first in range(start, stop, rows)]
    where = to_device(torch.tensor(tiles, dtype=torch.int32), query.device)
    return kernels.exchanged(query, key, scale, where, skip, rows)


@cache
def _proven(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Return whether the kernels work for heads of this width; tried once, so that later calls are timed without it."""
    what = f"attention received by patches is computed on {device}"
    return proven(what, "block by block", lambda: disagreement(device, dtype, width))


def disagreement(device: torch.device, dtype: torch.dtype, width: int) -> str:
    """Compare the kernels with float64 on random heads of this width; return the first difference, "" for none.

    Raises:
        Exception: a kernel cannot be compiled or run here.
    """
    draw = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, 2, 165, width, generator=draw).to(device, dtype) for _ in range(2))
    for spans in ([(0, 165)], [(0, 7), (7, 36), (36, 165)]):
        for skip in (0, 1):
            want = _exchanged(query.double(), key.double(), width**-0.5, spans, skip).unbind(-1)
            got = _fused(query, key, width**-0.5, spans, skip)
            for name, one, other in zip(("emitted", "received"), got, want, strict=True):
                far = float(((one - other).abs().amax() / other.mean()).cpu())
                if not far <= FUSED[dtype]:
                    return f"{name} attention is off by {far:.1e} of its mean"
    return ""
