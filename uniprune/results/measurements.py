"""Measurements of the rows of one benchmark: time spans, operations and visual tokens."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Base of all records: immutable, without unknown fields, all numbers finite."""

    # As constants, so that NaN in a field of any type reaches the check of what is written instead of becoming null.
    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False, ser_json_inf_nan="constants"
    )


class Quantity(Strict):
    """Distribution of one timed span over rows, in milliseconds per row."""

    median: float
    """Median."""
    iqr: float
    """Distance between the quartiles."""
    total: float
    """Sum over all rows, in seconds."""


class Timing(Strict):
    """Disjoint time spans of the predictions, without warm-up. A batch's spans are shared equally by its rows."""

    vision: Quantity
    """Vision tower."""
    projector: Quantity
    """Projector between tower and language model."""
    method: Quantity
    """All work for the method: scores, selection, gathering."""
    prefill: Quantity
    """Language model on the prompt."""
    decode: Quantity
    """Language model on the new tokens."""
    total: Quantity
    """Whole call of `generate`."""
    ttft: Quantity | None = None
    """Time to first token: the whole batch's time, not a share, since every row waits that long."""
    tpot: Quantity | None = None
    """Time per output token after the first, of the whole batch. Null if no prediction has a second token."""
    peak_mib: float | None = None
    """Most GPU memory in use during any batch, in MiB; null on the CPU."""
    new_tokens: float
    """Mean length of a prediction in tokens, the end token included."""
    batch_size: float
    """Mean rows per batch."""
    rows: int
    """Rows measured."""


class Flops(Strict):
    """Floating-point operations of one prompt's prefill, as counted by `uniprune.modeling.flops`."""

    vision: float
    """Vision tower."""
    projector: float
    """Projector."""
    llm: float
    """Language model, its head on the last token only."""

    @property
    def total(self) -> float:
        """Sum of the three."""
        return self.vision + self.projector + self.llm


class TokenLedger(Strict):
    """Visual tokens, measured from the shapes that entered each decoder layer. Means over rows with images."""

    layers: list[float]
    """Visual tokens entering each layer."""
    average: float
    """Mean over layers."""
    requested: float | None
    """Average that the budget requests; null for adaptive methods."""
    flagged: bool
    """True if any row's average is off by more than one token; never for adaptive methods."""
    adaptive: bool = False
    """True if the method chooses its own number of tokens, so that the keep ratio is nominal."""
    initial: float | None = None
    """Visual tokens before pruning; null, as the fields below, unless known of every row."""
    text: float | None = None
    """Text tokens."""
    frames: float | None = None
    """Frames of videos; null unless every row has some."""
    flops: Flops | None = None
    """Operations of the prefill."""
    kv_bytes: float | None = None
    """Bytes of keys and values in the cache after the prefill, without padding; null for quantised caches."""
