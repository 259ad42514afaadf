"""Options of `serve-bench`: load and prompts."""

from __future__ import annotations

from dataclasses import dataclass

from uniprune.errors import UserError


@dataclass(frozen=True)
class LoadOptions:
    """Load and prompts, the same for every series.

    Attributes:
        concurrency: requests in flight.
        requests: measured requests per series, concurrency and round.
        rounds: times that all series are measured in turn.
        warmup: requests before the first round that are not measured.
        side: height and width of the image of a prompt, in pixels.
        words: words of its text.
        new_tokens: tokens generated.
        seed: of pixels and words.
    """

    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16)
    requests: int = 64
    rounds: int = 2
    warmup: int = 4
    side: int = 336
    words: int = 16
    new_tokens: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"concurrency": 1, "requests": 1, "rounds": 1, "warmup": 0, "side": 16, "words": 1, "new_tokens": 2}
        for name, smallest in least.items():
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if number < smallest:
                    option = {"side": "image-side"}.get(name, name).replace("_", "-")
                    raise UserError(f"--{option} {number} must be at least {smallest}")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"--seed {self.seed} must be from 0 to 2 ** 63 - 1")
