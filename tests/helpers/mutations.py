"""Deliberate breaks of the engine, one line at a time, that its tests must notice: `python -m tests.helpers.mutations`.

Each mutation patches a temporary copy of the sources and runs one file of the engine's tests on it, which must fail.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.paths import ROOT

COPIED = ("uniprune", "methods", "models", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Mutation:
    """One line broken on purpose.

    Attributes:
        name: the broken behaviour.
        file: the source file.
        old: text that occurs once in it.
        new: its replacement.
        caught_by: tests/engine/test_`caught_by`.py must fail.
    """

    name: str
    file: str
    old: str
    new: str
    caught_by: str


MUTATIONS = (
    Mutation(
        "decode positions are not repaired",
        "uniprune/engine/decode.py",
        'kwargs["position_ids"] = positions\n',
        'kwargs["position_ids"] = kwargs.get("position_ids")\n',
        "decoding",
    ),
    Mutation(
        "decode masks are not replaced",
        "uniprune/engine/decode.py",
        'return hidden, {"attention_mask": self._masks[kept.layer], "position_ids": None}',
        'return hidden, {"position_ids": None}',
        "equivalence",
    ),
    Mutation(
        "decode masks of the first layer have the un-pruned length",
        "uniprune/engine/decode.py",
        "if first is not None:",
        "if False:",
        "batches",
    ),
    Mutation(
        "decode steps leave the layers after a stage unchanged",
        "uniprune/engine/decode.py",
        "self.layers = range(own, config.num_hidden_layers)",
        "self.layers = range(0)",
        "equivalence",
    ),
    Mutation(
        "padding comes before position 0",
        "uniprune/engine/compaction.py",
        "positions, right=True) - 1)",
        "positions))",
        "batches",
    ),
    Mutation(
        "tokens passed twice are not dropped",
        "uniprune/engine/decode.py",
        "if 0 < again < new:",
        "if False:",
        "decoding",
    ),
    Mutation(
        "masks are sized on layer 0", "uniprune/engine/compaction.py", "layer_idx=layer,", "layer_idx=0,", "equivalence"
    ),
    Mutation(
        "a cache does not remember how it was pruned",
        "uniprune/engine/compaction.py",
        "setattr(cache, ATTRIBUTE, state)",
        "pass",
        "decoding",
    ),
    Mutation(
        "markers are dropped at the first stage",
        "uniprune/engine/prompt.py",
        "if not len(after):",
        "if True:",
        "equivalence",
    ),
    Mutation(
        "rotary rows are the first n",
        "uniprune/engine/prefill.py",
        "tuple(take(table, rows) for table in rotary)",
        "tuple(table[:, : rows.shape[1]] for table in rotary)",
        "equivalence",
    ),
    Mutation(
        "padding is forgotten in the prefill mask",
        "uniprune/engine/prefill.py",
        "valid = to_device(kept.valid, hidden.device) if kept.padded else None",
        "valid = None",
        "batches",
    ),
    Mutation(
        "padding is forgotten in the decode mask",
        "uniprune/engine/decode.py",
        "if not kept.padded:",
        "if True:",
        "batches",
    ),
    Mutation(
        "prefill masks are not replaced",
        "uniprune/engine/session.py",
        "hidden, kwargs = changed[0], kwargs | changed[1]",
        'hidden, kwargs = changed[0], kwargs | changed[1] | {"attention_mask": kwargs["attention_mask"]}',
        "equivalence",
    ),
    Mutation(
        "kept tokens are not sorted",
        "uniprune/engine/checks.py",
        "selection=Selection(ordered, tokens)",
        "selection=Selection(unsorted, tokens)",
        "report",
    ),
    Mutation(
        "merged tokens do not follow the sort",
        "uniprune/engine/checks.py",
        "tokens.to(before)[to_device(order, before.device)]",
        "tokens.to(before)",
        "session",
    ),
    Mutation(
        "every beam decides for itself",
        "uniprune/engine/prefill.py",
        "return repeated_rows(self._embeds) if batch > 1 and any(inputs.tokens.visual_counts) else 1",
        "return 1",
        "decoding",
    ),
    Mutation(
        "attention rows see padding",
        "uniprune/engine/attention.py",
        "allowed = (position <= block[:, None]) & valid",
        "allowed = position <= block[:, None]",
        "attention",
    ),
    Mutation(
        "vision scores ignore what is already gone",
        "uniprune/engine/vision.py",
        "places[self.cells]",
        "places[: len(self.cells)]",
        "attention",
    ),
    Mutation(
        "the window order is not undone",
        "models/qwen2_5_vl.py",
        "ordered[window_order(grids, self._side).to(tokens.device)] = tokens",
        "ordered = tokens",
        "attention",
    ),
    Mutation(
        "a generated image token is an image",
        "uniprune/engine/session.py",
        "if visual_inputs(kwargs) and bool(placeholders(self._adapter, kwargs).any()):",
        "if bool(placeholders(self._adapter, kwargs).any()):",
        "decoding",
    ),
    Mutation(
        "an image token in a prompt without images is an image",
        "uniprune/engine/prefill.py",
        "if not self.has_visual:",
        "if False:",
        "batches",
    ),
    Mutation(
        "answers are copied to the CPU one by one",
        "uniprune/engine/checks.py",
        "found = to_host([*indices, *finite])",
        "found = [to_host([one])[0] for one in (*indices, *finite)]",
        "waiting",
    ),
    Mutation(
        "the CPU waits for copies to a device",
        "uniprune/engine/compaction.py",
        "non_blocking=tensor.device == HOST",
        "non_blocking=False",
        "waiting",
    ),
    Mutation(
        "hooks stay after an exception",
        "uniprune/engine/session.py",
        "        self._detach()\n\n    def _attach",
        "        if kind is None:\n            self._detach()\n\n    def _attach",
        "session",
    ),
)


def survives(mutation: Mutation) -> bool:
    """Check whether the tests still pass on the broken sources.

    Raises:
        ValueError: the line to break does not occur exactly once.
        RuntimeError: the tests could not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in COPIED:
            source, target = ROOT / name, Path(folder) / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
            else:
                shutil.copy(source, target)
        file = Path(folder) / mutation.file
        text = file.read_text(encoding="utf-8")
        if text.count(mutation.old) != 1:
            raise ValueError(
                f"{mutation.name}: {mutation.old!r} occurs {text.count(mutation.old)} times in {mutation.file}"
            )
        file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        tests = f"tests/engine/test_{mutation.caught_by}.py"
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", tests]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if run.returncode not in (0, 1):
            raise RuntimeError(
                f"{mutation.name}: pytest could not run {tests}:\n{run.stdout[-2000:]}{run.stderr[-2000:]}"
            )
        return run.returncode == 0


def main() -> int:
    """Run all mutations and return 1 if any goes unnoticed."""
    unnoticed = 0
    for mutation in MUTATIONS:
        alive = survives(mutation)
        unnoticed += alive
        print(f"{'NOT NOTICED' if alive else 'noticed':<12} {mutation.name}")
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main())
