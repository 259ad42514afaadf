"""The GPU kernels of a tower's attention, interpreted on the CPU: run by tests/pruning/test_fused.py with
TRITON_INTERPRET=1."""

import pytest
import torch
from torch import Tensor

from uniprune.engine import tower_attention
from uniprune.engine.tower_attention import _exchanged, _fused, _received, disagreement
from uniprune.modeling.adapter import Span

LENGTH = 40
WINDOWS = [(0, 4), (4, 39), (39, 40)]


def heads(width: int, dtype: torch.dtype, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Return queries and keys [batch, 2, 40, width], as a fused projection leaves them: heads side by side."""
    draw = torch.Generator().manual_seed(width)
    both = torch.randn(2, batch, LENGTH, 2, width, generator=draw).to(dtype).transpose(2, 3)
    return both[0], both[1]


@pytest.mark.parametrize(
    ("width", "dtype", "spans", "skip"),
    [
        (72, torch.float32, WINDOWS, 0),
        (16, torch.float32, [(0, LENGTH)], 1),
        (80, torch.float16, [(0, 20), (20, LENGTH)], 0),
    ],
    ids=["windows", "one image", "frames"],
)
def test_sums_of_rows_and_columns(width: int, dtype: torch.dtype, spans: list[Span], skip: int) -> None:
    query, key = heads(width, dtype)
    want = _exchanged(query.float(), key.float(), width**-0.5, spans, skip)
    emitted, got = _fused(query, key, width**-0.5, spans, skip, 16)
    torch.testing.assert_close(torch.stack((emitted, got), dim=-1), want, rtol=2e-5, atol=1e-8)
    assert bool((emitted[:, :skip] == 0).all())
    if not skip:
        torch.testing.assert_close(got, _received(query.float(), key.float(), width**-0.5, spans), rtol=2e-5, atol=1e-8)


def test_large_logits() -> None:
    query, key = heads(88, torch.float32, batch=1)
    want = _exchanged(40 * query, key, 1.0, [(0, LENGTH)], 0)
    got = torch.stack(_fused(40 * query, key, 1.0, [(0, LENGTH)], 0), dim=-1)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-6)


def test_the_check_before_use(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert disagreement(cpu, torch.float16, 16) == ""
    monkeypatch.setattr(tower_attention, "_exchanged", lambda q, *rest: _exchanged(1.1 * q, *rest))
    assert "received attention is off by" in disagreement(cpu, torch.float16, 16)
