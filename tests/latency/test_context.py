"""`bench` names prompts that are longer than the model's context."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from uniprune.evaluation.method_spec import MethodSpec
from uniprune.latency.measure import Bench
from uniprune.latency.options import BenchOptions
from uniprune.latency.rows import BenchFile
from uniprune.latency.tables import notes
from uniprune.latency.timed_model import load_timed
from uniprune.modeling.loading import Placement
from uniprune.utils.console import RunProgress

pytestmark = pytest.mark.end_to_end


def test_prompts_beyond_the_context_have_a_note(tmp_path: Path) -> None:
    model = load_timed("tiny-llava", random_weights=True, placement=Placement("float32", "sdpa", "cpu"))
    config = model.adapter.decoder.config
    methods, file = [MethodSpec("none"), MethodSpec("divprune", ratio=0.25)], tmp_path / "bench.jsonl"
    tokens = model.adapter.usual_tokens + 8 + 2 - 1  # an image, text, and new tokens, the last of which has no position
    for context, expected in ((tokens, None), (tokens - 1, tokens - 1)):
        config.max_position_embeddings = context
        options = BenchOptions(text=8, new_tokens=2, repeats=1, warmup=0)
        with RunProgress(1, Console(quiet=True)) as progress:
            rows = Bench(model, methods, options, BenchFile(file.with_suffix(f".{context}")), progress).run()
        assert [row.measured.context for row in rows if row.measured] == [expected] * 2
        assert sum(f"its context of {context} positions" in note for note in notes(rows)) == (expected is not None)
