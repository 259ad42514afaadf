"""One method on one tiny model, with cached runs that several checks need."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from uniprune.conformance.recording import RecordedDecision, RecordingPruner
from uniprune.conformance.state import State, snapshot
from uniprune.engine import PromptInfo, RowReport, prune
from uniprune.errors import PruningError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.families import find_adapter
from uniprune.modeling.greedy import Greedy
from uniprune.modeling.random_images import Size
from uniprune.modeling.tiny import TinyModel, TinyPrompt, tiny_model
from uniprune.pruning.base import Compose, Pruner, Stage
from uniprune.pruning.placement import placed

RATIO = 0.3
RATIOS = (0.02, RATIO, 0.6, 0.98)
"""Of 36 tokens these keep 1, 11, 22 and 35."""
SIZE = (6, 6)
OTHER = (4, 7)
"""Size of every second image on models that accept several sizes."""

Picks = tuple[tuple[tuple[int, ...], ...], ...]


class Models:
    """Tiny models, each built and run once on first use and cached by this object."""

    def __init__(self) -> None:
        self._models: dict[tuple[Any, ...], tuple[TinyModel, Any]] = {}

    def get(self, family: str, attention: str, dtype: torch.dtype, size: Size) -> tuple[TinyModel, Any]:
        """Return the tiny model of a family, as prompt factory and as module.

        Raises:
            UserError: an unknown family.
            UnsupportedError: a family without a tiny model.
        """
        key = (family, attention, dtype, size)
        if key not in self._models:
            tiny = self.tiny(family, size)
            model = tiny.model(attention, dtype)
            prompt = tiny.prompt(torch.Generator().manual_seed(0), [size], before=4, question=6)
            # transformers adds hooks of its own in a model's first forward
            generate(model, in_precision(dtype, tiny.batch([prompt])), steps=1)
            self._models[key] = tiny, model
        return self._models[key]

    def tiny(self, family: str, size: Size) -> TinyModel:
        """Return a prompt factory; raises as `get` does."""
        return tiny_model(family, size)


@dataclass(frozen=True)
class PrefillResult:
    """Result of one prefill per batch.

    Attributes:
        rows: one report per prompt.
        logits: [P, V] after the last token of every prompt.
        caches: per batch, the tokens whose keys every layer has cached; None for layers that cache no keys.
    """

    rows: tuple[RowReport, ...]
    logits: Tensor
    caches: tuple[tuple[int | None, ...], ...]

    @property
    def picks(self) -> dict[str, Picks]:
        """Prompt -> for every stage, for every image, the kept cells."""
        return {
            row.sample: tuple(tuple(tuple(kept.tolist()) for kept in stage.kept) for stage in row.stages)
            for row in self.rows
        }


@dataclass
class MethodUnderTest:
    """One method on one family.

    Attributes:
        pruner: the method; checks choose the ratio.
        family: name of the model family.
        models: cache of tiny models.
        attention: kernel of the model.
        batch: prompts per forward.
        dtype: precision of the model.
        size: tokens of an image.
        before: state of process, model and method at construction.
    """

    pruner: Pruner
    family: str
    models: Models
    attention: str = "sdpa"
    batch: int = 1
    dtype: torch.dtype = torch.float32
    size: Size = SIZE
    before: State = field(init=False)
    _pruners: dict[float, Pruner] = field(init=False, default_factory=dict)
    _rows: dict[float, tuple[RowReport, ...]] = field(init=False, default_factory=dict)
    _recordings: dict[float, RecordingPruner] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.before = snapshot(self.model, self.at(RATIO))

    def variant(self, **changes: Any) -> MethodUnderTest:
        """Return the method on another model of the family."""
        return dataclasses.replace(self, **changes)

    @cached_property
    def tiny(self) -> TinyModel:
        """Factory of prompts."""
        return self.models.get(self.family, self.attention, self.dtype, self.size)[0]

    @cached_property
    def model(self) -> Any:
        """The tiny model."""
        return self.models.get(self.family, self.attention, self.dtype, self.size)[1]

    @cached_property
    def adapter(self) -> ModelAdapter:
        """The model's adapter."""
        return find_adapter(self.model)

    @property
    def depth(self) -> int:
        """Number of decoder layers."""
        return len(self.adapter.layers)

    # --- prompts ------------------------------------------------------------------------------------------------
    @cached_property
    def prompts(self) -> tuple[TinyPrompt, ...]:
        """Three prompts of different lengths, the second with two images."""
        return tuple(
            self.prompt(name, images, extra=extra) for name, images, extra in (("a", 1, 0), ("b", 2, 3), ("c", 1, 6))
        )

    def prompt(self, name: str, images: int = 1, extra: int = 0) -> TinyPrompt:
        """A prompt whose content follows from its name; `extra` words make it longer."""
        other = OTHER if self.tiny.dynamic and self.size == SIZE else self.size
        generator = torch.Generator().manual_seed(sum(name.encode()))
        sizes = [(self.size, other)[i % 2] for i in range(images)]
        return self.tiny.prompt(generator, sizes, before=4 + extra, question=6 + extra // 2, name=name)

    def inputs(self, prompts: Sequence[TinyPrompt]) -> dict[str, Tensor]:
        """Return the model's arguments, in its precision."""
        return in_precision(self.dtype, self.tiny.batch(prompts))

    # --- runs ---------------------------------------------------------------------------------------------------
    def at(self, ratio: float) -> Pruner:
        """Return the method at another ratio; always the same object, so that hidden state is noticed."""
        return self._pruners.setdefault(ratio, self.pruner.with_ratio(ratio))

    def stages(self, ratio: float = RATIO) -> tuple[Stage, ...]:
        """Return the pruning points."""
        return placed(self.at(ratio).schedule(self.depth), self.adapter.attends)

    @property
    def adaptive(self) -> bool:
        """Return whether some stage chooses its own number of tokens."""
        return any(not stage.pruner.exact for stage in self.stages())

    def run(self, pruner: Pruner | None = None, prompts: Sequence[TinyPrompt] | None = None) -> PrefillResult:
        """Prefill some prompts (default: all three) under a pruner (default: the method at the ratio `RATIO`)."""
        with prune(self.model, pruner or self.at(RATIO)) as session:
            found = self._forward(self.prompts if prompts is None else prompts, session)
            return dataclasses.replace(found, rows=tuple(row for report in session.reports for row in report.rows))

    def unpruned(self, prompts: Sequence[TinyPrompt] | None = None) -> PrefillResult:
        """Prefill some prompts with the un-pruned model; no reports."""
        return self._forward(self.prompts if prompts is None else prompts)

    def _forward(self, prompts: Sequence[TinyPrompt], session: Any = None) -> PrefillResult:
        logits, caches = [], []
        for start in range(0, len(prompts), self.batch):
            chunk = prompts[start : start + self.batch]
            if session is not None:
                session.samples = tuple(PromptInfo(p.name, torch.tensor(p.question)) for p in chunk)
            out = generate(self.model, self.inputs(chunk), steps=1)
            logits.append(out.logits[0])
            caches.append(tuple(cached_tokens(out.past_key_values, layer) for layer in range(self.depth)))
        return PrefillResult((), torch.cat(logits), tuple(caches))

    @cached_property
    def baseline(self) -> PrefillResult:
        """All prompts under the method at the ratio `RATIO`."""
        return self.run()

    # --- decisions ----------------------------------------------------------------------------------------------
    def recording(self, ratio: float = RATIO) -> RecordingPruner:
        """Return the method's recorded decisions on all prompts; one that the engine refuses ends the run."""
        if ratio not in self._recordings:
            recording = RecordingPruner(inner=self.at(ratio))
            try:
                self._rows[ratio] = self.run(recording).rows
            except Exception as error:
                if error not in recording.errors and not isinstance(error, PruningError):
                    raise
            self._recordings[ratio] = recording
        return self._recordings[ratio]

    def kept_share(self, ratio: float) -> float:
        """Return the measured share of kept visual tokens, mean over layers and prompts; NaN after a failure."""
        self.recording(ratio)
        rows = self._rows.get(ratio, ())
        return sum(row.average_ratio for row in rows) / len(rows) if rows else float("nan")

    @property
    def decisions(self) -> list[RecordedDecision]:
        """All decisions at all ratios."""
        return [decision for ratio in RATIOS for decision in self.recording(ratio).decisions]


def in_precision(dtype: torch.dtype, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a model's arguments with the floating-point ones in one precision."""
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def generate(model: Any, inputs: dict[str, Tensor], steps: int) -> Any:
    """Generate greedily and return logits and cache, too; `generate` derives positions from the padding."""
    return Greedy().generate(model, inputs, steps, return_dict_in_generate=True, output_logits=True)


def cached_tokens(cache: Any, layer: int) -> int | None:
    """Return how many tokens a layer of a cache was given; None if the cache holds no keys for it."""
    length = getattr(cache.layers[layer], "get_seq_length", None) if layer < len(cache.layers) else None
    return None if length is None else int(length())


def with_positions(pruner: Pruner, positions: str) -> Pruner:
    """Return the method with another value of `positions`."""
    if isinstance(pruner, Compose):
        return Compose(*(with_positions(part, positions) for part in pruner.parts))
    changed: Pruner = dataclasses.replace(pruner, positions=positions)  # type: ignore[arg-type]
    return changed


@contextmanager
def traced(layers: Sequence[Any]) -> Iterator[dict[int, Tensor]]:
    """Record the [B, n, d] rotary cosines that every layer is called with, for forwards inside the block."""
    seen: dict[int, Tensor] = {}

    def hook(number: int) -> Any:
        def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            seen[number] = kwargs["position_embeddings"][0].expand(*hidden.shape[:2], -1)

        return note

    handles = [layer.register_forward_pre_hook(hook(i), with_kwargs=True) for i, layer in enumerate(layers)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
