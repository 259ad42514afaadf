"""Reference vectors as test parameters: what the authors' released code returned, stored as numbers.

tests/golden holds a part of them, small enough for the repository; `pytest --golden DIR` runs the same tests on all
cases that the files of another folder hold. Files are named `<name>.npz`, arrays `<case>_<array>`. A large case may be
split over `<name>.<part>.npz`: arrays of one name are put together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.paths import GOLDEN
from uniprune.pruning.base import Selection

FOLDER = GOLDEN
DTYPES = (torch.float64, torch.float32)
Methods = Callable[[str], Any]
"""A look-up of method classes by registered name: the shipped ones, or copies with a deliberate fault."""


@dataclass(frozen=True)
class Case:
    """The arrays of one case as attributes: floating ones as tensors of `dtype`, scalars as numbers."""

    files: tuple[Path, ...]
    prefix: str
    dtype: torch.dtype

    @cached_property
    def arrays(self) -> dict[str, Any]:
        """Array name -> array."""
        found: dict[str, list[Any]] = {}
        for file in self.files:
            with np.load(file) as archive:
                for key in archive.files:
                    if key.startswith(self.prefix):
                        found.setdefault(key.removeprefix(self.prefix), []).append(archive[key])
        return {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in found.items()}

    def __getattr__(self, name: str) -> Any:
        try:
            value = self.arrays[name]
        except KeyError:
            raise AttributeError(f"{self.prefix}{name} is in none of {[file.name for file in self.files]}") from None
        if not value.ndim:
            return value.item()
        tensor = torch.from_numpy(value)
        # Numbers stored in float64 are references to compare with, not inputs.
        return tensor.to(self.dtype) if tensor.dtype == torch.float32 else tensor

    def at(self, stage: int) -> Case:
        """The arrays of one stage."""
        return Case(self.files, f"{self.prefix}s{stage}_", self.dtype)


def golden(file: str, excluded: Mapping[str, str] | None = None) -> Any:
    """Give a test every case of a file as its argument `case`, in float64 and in float32.

    Args:
        file: name without ending.
        excluded: case, or case and dtype ("case0-f64"), -> why it is skipped.
    """
    return pytest.mark.golden(file, excluded or {})


def cases(folder: Path, file: str, excluded: Mapping[str, str]) -> Iterator[Any]:
    """Return the parameters that `golden` stands for."""
    files = tuple(sorted([*folder.glob(f"{file}.npz"), *folder.glob(f"{file}.*.npz")]))
    names = sorted({key.split("_")[0] for path in files for key in np.load(path).files})
    for name in names:
        for dtype in DTYPES:
            label = f"{name}-f{torch.finfo(dtype).bits}"
            reason = excluded.get(name) or excluded.get(label)
            marks = [pytest.mark.skip(reason=reason)] if reason else []
            yield pytest.param(Case(files, f"{name}_", dtype), id=label, marks=marks)


def same(got: Tensor, want: Tensor) -> None:
    assert got.tolist() == want.tolist()


def picked(answer: Tensor | Selection, want: Tensor) -> None:
    """Require the set `want` of an answer."""
    same(ascending(answer.indices if isinstance(answer, Selection) else answer), want)


def ascending(indices: Tensor) -> Tensor:
    return indices.sort().values


def rotary(length: int, width: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Tables [1, length, width] as models compute them, in float32."""
    frequency = 1 / base ** (torch.arange(0, width, 2).float() / width)
    angles = (torch.arange(length).float()[:, None] * frequency).repeat(1, 2)[None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def llama_attention(case: Case, wq: torch.Tensor | None = None, wk: torch.Tensor | None = None) -> Any:
    """Return an attention of transformers with the case's head size, and its query and key weights if given."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention

    wide = case.head_dim if wq is None else wq.shape[1]
    heads = 1 if wq is None else len(wq) // case.head_dim
    kv_heads = 1 if wk is None else len(wk) // case.head_dim
    config = LlamaConfig(
        hidden_size=wide, num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=case.head_dim
    )
    module = LlamaAttention(config, 0).to(case.dtype).requires_grad_(False)
    for layer, weight in ((module.q_proj, wq), (module.k_proj, wk)):
        if weight is not None:
            layer.weight.copy_(weight)
    return module
