"""Tuning files (`python run.py tune FILE.yaml`); defaults are those of the Q-Tuning paper (Table 7, appendix B)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from uniprune.errors import UserError, unknown
from uniprune.results.measurements import Strict
from uniprune.tuning.pruning import Pair
from uniprune.tuning.strategy import SAMPLES, TOKENS
from uniprune.utils.json_text import to_json
from uniprune.utils.yaml_file import read_model

Removal = Literal["physical", "mask"]
Ratio = Annotated[float, Field(gt=0, le=1)]
FinitePositive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Schedule = Literal["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
                   "inverse_sqrt"]  # fmt: skip


class PairChoice(Strict):
    """One pair of strategies in a tuning file; fields left out have the file's values."""

    samples: str
    """Sample strategy."""
    tokens: str
    """Token strategy."""
    sample_ratio: Ratio | None = None
    """Share of a batch's samples to keep."""
    token_ratio: Ratio | None = None
    """Share of an answer's tokens to keep, in samples that lose tokens."""
    removal: Removal | None = None
    """Place that removed tokens leave: the sequence, or only the loss."""
    rescore: PositiveInt | None = None
    """Epochs between two scorings of a sample."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Strategy fields: "samples.drop", "tokens.keep", …"""
    role: Literal["method", "variant", "baseline", "whole"] = "baseline"
    """Role in the comparison: the method, a variant of it, a baseline, or fine-tuning on everything."""

    @property
    def label(self) -> str:
        """Return `q+q`, with fields that differ from the file in brackets."""
        overrides = {"samples": self.sample_ratio, "tokens": self.token_ratio, "removal": self.removal,
                     "rescore": self.rescore}  # fmt: skip
        changes = self.set | {name: value for name, value in overrides.items() if value is not None}
        listed = ", ".join(f"{name}={_short(value)}" for name, value in changes.items())
        return f"{self.samples}+{self.tokens}" + f" [{listed}]" * bool(changes)


class Settings(Strict):
    """A tuning file."""

    model: str
    """Folder or hub id of a causal language model."""
    data: list[str]
    """Files and folders of instructions; "generated" is the embedded set."""
    test: list[str] = Field(default_factory=list)
    """Held-out instructions for exact-match accuracy, in the same forms."""
    pairs: list[PairChoice]
    """Pairs of strategies to compare."""
    seeds: list[int] = Field(default_factory=lambda: [0])
    """Seeds of data order, adapter initialisation and random choices; every pair runs once with each."""
    sample_ratio: Ratio = 0.125
    """Share of a batch's samples to keep."""
    token_ratio: Ratio = 0.5
    """Share of an answer's tokens to keep, in samples that lose tokens."""
    removal: Removal = "physical"
    """Place that removed tokens leave: the sequence ("physical") or only the loss ("mask")."""
    reference: str | None = None
    """Folder or hub id of the reference model, for strategies that need one."""
    epochs: PositiveInt = 3
    """Passes over the data."""
    rate: FinitePositive = 1e-4
    """Highest learning rate."""
    schedule: Schedule = "cosine"
    """Learning rate schedule of transformers."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of the steps with a rising learning rate."""
    batch: PositiveInt = 8
    """Samples per process that are pruned together."""
    unit: Literal["device", "global"] = "device"
    """Samples that are pruned together on several processes: those of each ("device", as in the paper), or of all."""
    accumulation: PositiveInt = 4
    """Batches per optimizer step."""
    cutoff: int = Field(2048, ge=2)
    """Longest sample in tokens."""
    rank: NonNegativeInt = 8
    """LoRA rank, on all linear layers but the output; 0 trains every weight."""
    alpha: PositiveInt = 16
    """LoRA scale, divided by the rank."""
    row_tokens: PositiveInt = 4096
    """Tokens per packed row of training, which takes one forward and backward."""
    score_tokens: PositiveInt = 16384
    """Tokens in one scoring forward."""
    score_dtype: Literal["float32", "bfloat16"] | None = None
    """Precision of the scoring forward; null is the model's own."""
    rescore: PositiveInt = 1
    """Epochs between two scorings of a sample; 1 scores at every visit, as the paper does, more reuses old scores."""
    save_every: PositiveInt = 50
    """Optimizer steps between checkpoints."""
    tasks: list[str] = Field(default_factory=list)
    """Tasks of lm-evaluation-harness for the tuned models, by its names."""
    task_folder: str | None = None
    """Folder of additional tasks in its format."""
    task_limit: PositiveInt | None = None
    """Number of items of each task, from its first; null for all."""
    probe: NonNegativeInt = 100
    """Number of fixed random training samples whose perplexity and entropy are tracked (Figure 8)."""
    probe_points: PositiveInt = 12
    """Measurements of them in a training."""

    def pair(self, choice: PairChoice) -> Pair:
        """Return the strategy objects of a choice.

        Raises:
            UserError: an unknown strategy or field, a wrong value, or a missing reference model.
        """
        fields: dict[str, dict[str, Any]] = {"samples": {}, "tokens": {}}
        for key, value in choice.set.items():
            part, _, name = key.partition(".")
            if part not in fields or not name:
                raise UserError(f"set {key!r} must name samples.FIELD or tokens.FIELD")
            fields[part][name] = value
        built = {
            part: _build(registry.kind, getattr(choice, part), registry.get(getattr(choice, part)), fields[part])
            for part, registry in (("samples", SAMPLES), ("tokens", TOKENS))
        }
        pair = Pair(
            built["samples"],
            built["tokens"],
            self.sample_ratio if choice.sample_ratio is None else choice.sample_ratio,
            self.token_ratio if choice.token_ratio is None else choice.token_ratio,
        )
        if pair.tokens.reference and self.reference is None:
            raise UserError(f"token strategy {choice.tokens!r} compares with a reference model; set reference: FOLDER")
        return pair


def _build(kind: str, name: str, strategy: Any, fields: Mapping[str, Any]) -> Any:
    """Construct a strategy from values as YAML has them."""
    hints = get_type_hints(strategy, include_extras=True)
    known = [f.name for f in dataclasses.fields(strategy)]
    values = {}
    for field, value in fields.items():
        if field not in known:
            raise unknown(f"field of {kind} {name!r}:", field, known)
        try:
            values[field] = TypeAdapter(hints[field]).validate_json(to_json(value), strict=True)
        except ValidationError as error:
            raise UserError(f"set {field}={value!r} of {kind} {name!r}: {error.errors()[0]['msg']}") from error
    return strategy(**values)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")


def load_settings(path: Path, root: Path) -> Settings:
    """Load a tuning file; paths in it that exist below `root` are made relative to it.

    Raises:
        UserError: the file does not exist, is no YAML of the allowed kind, or has an unknown field or a wrong value.
    """
    if not path.is_file():
        raise UserError(f"tuning file {str(path)!r} does not exist; configs/qtuning/ has some")
    settings = read_model(path, Settings)
    for choice in settings.pairs:
        settings.pair(choice)
    if len({choice.label for choice in settings.pairs}) < len(settings.pairs):
        raise UserError(f"{path} names a pair twice")

    def resolved(name: str) -> str:
        return str(root / name) if not Path(name).is_absolute() and (root / name).exists() else name

    return settings.model_copy(update={
        "model": resolved(settings.model),
        "reference": None if settings.reference is None else resolved(settings.reference),
        "data": [resolved(name) for name in settings.data],
        "test": [resolved(name) for name in settings.test],
    })  # fmt: skip
