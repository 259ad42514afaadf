"""Names of the time spans of one `generate` call, for timer, records, `bench` and leaderboard."""

from __future__ import annotations

from typing import Literal, get_args

SpanName = Literal["vision", "projector", "method", "prefill", "decode"]
"""A part of the call; parts never overlap."""
PARTS: tuple[SpanName, ...] = get_args(SpanName)
SPANS = (*PARTS, "total")
"""Times of a row: every part, and from the first part to the last."""
TIMES = (*SPANS, "ttft", "tpot")
"""Times of a batch: `SPANS`, time to the first token and per further token."""
