"""Options of `bench`: sizes of the prompts and number of the calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from uniprune.errors import UserError
from uniprune.latency.prompts import LEAST_TEXT


@dataclass(frozen=True)
class BenchOptions:
    """Sizes of the prompts and number of the calls.

    Attributes:
        batches: prompts per call.
        tokens: visual tokens of a prompt; None for one image of usual size.
        text: words of a prompt.
        new_tokens: tokens generated.
        repeats: measured calls.
        warmup: calls before them that are not measured.
        seed: of pixels and words.
        protocol: as for evaluations.
        graphs: whether prefills are measured as CUDA graphs, too.
    """

    batches: tuple[int, ...] = (1,)
    tokens: tuple[int, ...] | None = None
    text: int = 60
    new_tokens: int = 8
    repeats: int = 10
    warmup: int = 2
    seed: int = 0
    protocol: Literal["site", "average"] = "site"
    graphs: bool = False

    def __post_init__(self) -> None:
        least = {"text": LEAST_TEXT, "new_tokens": 1, "repeats": 1, "warmup": 0, "batches": 1, "tokens": 1}
        options = {"text": "text-tokens", "new_tokens": "new-tokens", "batches": "batch"}
        for name, smallest in least.items():
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and number < smallest:
                    raise UserError(f"--{options.get(name, name)} {number} must be at least {smallest}")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"--seed {self.seed} must be from 0 to 2 ** 63 - 1")
