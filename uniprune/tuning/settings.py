"""What a tuning file says: `python run.py tune FILE.yaml`. Defaults are the Q-Tuning paper's (Table 7, appendix B)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from uniprune.errors import UserError, unknown
from uniprune.pruning.budget import check_ratio
from uniprune.results.measurements import Strict
from uniprune.tuning.pruning import Pair
from uniprune.tuning.strategy import SAMPLES, TOKENS

Removal = Literal["physical", "mask"]


class PairChoice(Strict):
    """One pair of strategies as its user asked for it; what is left out is the file's."""

    samples: str
    """Sample strategy."""
    tokens: str
    """Token strategy."""
    sample_ratio: float | None = None
    """Share of a batch's samples to keep."""
    token_ratio: float | None = None
    """Share of an answer's tokens to keep, where tokens are removed."""
    removal: Removal | None = None
    """Whether removed tokens leave the sequence or only the loss."""
    rescore: int | None = Field(None, ge=1)
    """Epochs between two scorings of a sample."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Strategy fields: "samples.drop", "tokens.keep", …"""
    role: Literal["method", "variant", "baseline", "whole"] = "baseline"
    """What it is in the comparison: the method, a variant of it, a baseline, or fine-tuning on everything."""

    @property
    def label(self) -> str:
        """`q+q`, with what differs from the file in brackets."""
        told = [f"{key}={_short(value)}" for key, value in self.set.items()]
        for name, short in (("sample_ratio", "samples"), ("token_ratio", "tokens"), ("removal", "removal"),
                            ("rescore", "rescore")):  # fmt: skip
            if getattr(self, name) is not None:
                told.append(f"{short}={_short(getattr(self, name))}")
        return f"{self.samples}+{self.tokens}" + f" [{', '.join(told)}]" * bool(told)


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
    """One run of every pair for each: data order, adapter initialisation and random choices."""
    sample_ratio: float = 0.125
    """Share of a batch's samples to keep."""
    token_ratio: float = 0.5
    """Share of an answer's tokens to keep, where tokens are removed."""
    removal: Removal = "physical"
    """Removed tokens leave the sequence ("physical") or only the loss ("mask")."""
    reference: str | None = None
    """Folder or hub id of the reference model of strategies that need one."""
    epochs: int = Field(3, ge=1)
    """Passes over the data."""
    rate: float = Field(1e-4, gt=0)
    """Highest learning rate."""
    schedule: str = "cosine"
    """Learning rate schedule of transformers."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of the steps with a rising learning rate."""
    batch: int = Field(8, ge=1)
    """Samples per process that are pruned together; over all processes they make one batch."""
    accumulation: int = Field(4, ge=1)
    """Batches per optimizer step."""
    cutoff: int = Field(2048, ge=2)
    """Longest sample in tokens."""
    rank: int = Field(8, ge=0)
    """LoRA rank, on all linear layers but the output; 0 trains every weight."""
    alpha: int = Field(16, ge=1)
    """LoRA scale, divided by the rank."""
    row_tokens: int = Field(4096, ge=1)
    """Tokens packed into one row of training, a forward and backward each."""
    score_tokens: int = Field(16384, ge=1)
    """Tokens in one scoring forward."""
    score_dtype: Literal["float32", "bfloat16"] | None = None
    """Precision of the scoring forward; null is the model's own."""
    rescore: int = Field(1, ge=1)
    """Epochs between two scorings of a sample; 1 scores at every visit, as the paper does, more reuses old scores."""
    save_every: int = Field(50, ge=1)
    """Optimizer steps between checkpoints."""
    tasks: list[str] = Field(default_factory=list)
    """Tasks of lm-evaluation-harness for the tuned models, by its names."""
    task_folder: str | None = None
    """Folder with tasks of your own in its format."""
    task_limit: int | None = Field(None, ge=1)
    """First items of each task only."""
    probe: int = Field(100, ge=0)
    """Fixed random training samples whose perplexity and entropy are tracked (Figure 8)."""
    probe_points: int = Field(12, ge=1)
    """How often in a training."""

    def pair(self, choice: PairChoice) -> Pair:
        """The strategy objects of a choice.

        Raises:
            UserError: an unknown strategy or field, a refused value, or a missing reference model.
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
        ratios = [check_ratio(first if first is not None else second) for first, second in (
            (choice.sample_ratio, self.sample_ratio), (choice.token_ratio, self.token_ratio))]  # fmt: skip
        pair = Pair(built["samples"], built["tokens"], ratios[0], ratios[1])
        if pair.tokens.reference and self.reference is None:
            raise UserError(f"token strategy {choice.tokens!r} compares with a reference model; set reference: FOLDER")
        return pair


def _build(kind: str, name: str, strategy: Any, fields: Mapping[str, Any]) -> Any:
    """A strategy with validated fields."""
    hints = get_type_hints(strategy)
    known = [f.name for f in dataclasses.fields(strategy)]
    values = {}
    for field, value in fields.items():
        if field not in known:
            raise unknown(f"field of {kind} {name!r}:", field, known)
        try:
            values[field] = TypeAdapter(hints[field]).validate_python(value)
        except ValidationError as error:
            raise UserError(f"set {field}={value!r} of {kind} {name!r}: {error.errors()[0]['msg']}") from error
    return strategy(**values)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")


def load_settings(path: Path, root: Path) -> Settings:
    """A tuning file, paths in it relative to `root` where they exist there.

    Raises:
        UserError: no such file, no YAML, or a field that is unknown or has a wrong value.
    """
    if not path.is_file():
        raise UserError(f"tuning file {str(path)!r} does not exist; configs/qtuning/ has some")
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings = Settings.model_validate(told)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {place}: {first['msg']} (got {first.get('input')!r})") from error
    for choice in settings.pairs:
        settings.pair(choice)
    if len({choice.label for choice in settings.pairs}) < len(settings.pairs):
        raise UserError(f"{path} names a pair twice")

    def here(name: str) -> str:
        return str(root / name) if not Path(name).is_absolute() and (root / name).exists() else name

    reference = None if settings.reference is None else here(settings.reference)
    return settings.model_copy(update={
        "model": here(settings.model), "reference": reference,
        "data": [here(n) for n in settings.data], "test": [here(n) for n in settings.test],
    })  # fmt: skip
