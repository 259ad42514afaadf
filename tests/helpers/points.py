"""Points to select from, and their similarity."""

from __future__ import annotations

import torch
from torch import Tensor


def cloud(seed: int, n: int = 24, d: int = 6) -> Tensor:
    """Clustered points of different norms."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, d, generator=generator, dtype=torch.float64)
    points = centres[torch.arange(n) % 4] + 0.3 * torch.randn(n, d, generator=generator, dtype=torch.float64)
    return points * torch.rand(n, 1, generator=generator, dtype=torch.float64).exp()


def cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of two vectors."""
    return float(a @ b / (a.norm() * b.norm()))
