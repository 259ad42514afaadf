"""Inputs of all runs of one tuning file: tokenizer, samples and base model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from uniprune.errors import UserError
from uniprune.modeling.checkpoints import commit_of, fingerprint, source_of
from uniprune.modeling.context import context_length
from uniprune.modeling.loading import DTYPES, place
from uniprune.synthetic.letters import held_out_set, training_set
from uniprune.tuning.instruction_data import Problems, Sample, encode_rows, read_rows
from uniprune.tuning.settings import Settings
from uniprune.utils.hashing import stable_hash

GENERATED = "generated"
"""Name of the embedded set in a tuning file."""


@dataclass(frozen=True)
class TuningData:
    """Inputs of all runs of one file.

    Attributes:
        tokenizer: of the model.
        train: samples to train on.
        test: held-out samples.
        problems: one line per reason why rows were left out or shortened.
        samples_hash: hash of all samples.
        weights: hash or commit of the base model.
    """

    tokenizer: Any
    train: list[Sample]
    test: list[Sample]
    problems: list[str]
    samples_hash: str
    weights: str


def load_tuning_data(settings: Settings, console: Console) -> TuningData:
    """Load the tokenizer and all samples, and print the problems of the data.

    Raises:
        UserError: the model or the data cannot be read.
    """
    tokenizer = load_pretrained("AutoTokenizer", settings.model)
    train, problems = load_samples(settings.data, training_set, tokenizer, settings.cutoff, console)
    test, test_problems = load_samples(settings.test, held_out_set, tokenizer, settings.cutoff, console)
    context = context_length(load_pretrained("AutoConfig", settings.model).get_text_config())
    problems += too_long(train, context)
    test_problems += too_long(test, context)
    for line in [*problems, *(f"test data: {line}" for line in test_problems)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    content = [[s.ids.tolist(), s.answer.tolist(), s.kind] for s in [*train, *test]]
    folder = Path(settings.model)
    weights = fingerprint(folder) if folder.is_dir() else commit_of(settings.model) or settings.model
    return TuningData(tokenizer, train, test, problems, stable_hash([len(train), *content]), weights)


def too_long(samples: Sequence[Sample], context: int | None) -> list[str]:
    """Return one line if samples are longer than the model's context; none if that is unknown."""
    longer = [sample for sample in samples if context is not None and len(sample.ids) > context]
    if not longer:
        return []
    most = max(len(sample.ids) for sample in longer)
    return [
        f"{len(longer)} of {len(samples)} samples, with up to {most} tokens, exceed the model's context of {context} "
        f"positions (kept; the first is row {longer[0].index}); cutoff: {context} would cut them"
    ]


def load_samples(
    names: Sequence[str], generate: Callable[[], list[Any]], tokenizer: Any, cutoff: int, console: Console
) -> tuple[list[Sample], list[str]]:
    """Load samples from files, folders or the embedded set, numbered consecutively, and one line per problem."""
    loaded: list[Sample] = []
    lines: list[str] = []
    start = 0
    for name in names:
        problems = Problems()
        rows = generate() if name == GENERATED else read_rows(Path(name), problems)
        shown = track(rows, f"tokenising {name}", console=console, transient=True, disable=not console.is_terminal)
        try:
            loaded += encode_rows(shown, tokenizer, cutoff, problems, start)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        lines += [f"{name}: {line}" if len(names) > 1 else line for line in problems.lines()]
        start += len(rows)
    return loaded, lines


def load_pretrained(factory: str, source: str, **kwargs: Any) -> Any:
    """Call `transformers.<factory>.from_pretrained`, without code of the checkpoint. Raises UserError if it fails."""
    import transformers

    try:
        return getattr(transformers, factory).from_pretrained(source_of(source), trust_remote_code=False, **kwargs)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"model {source!r} cannot be loaded ({reason}); give a folder with weights and tokenizer"
        ) from error


def load_model(source: str, settings: Settings, device: torch.device, seed: int, lora: bool = True) -> Any:
    """Load a causal language model, with new LoRA adapters for training if `lora` and the rank is not 0."""
    model = load_pretrained("AutoModelForCausalLM", source, dtype=DTYPES[place(device=device.type).dtype])
    model = model.to(device)
    if not (lora and settings.rank):
        return model
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UserError("LoRA needs the package peft: pip install -e '.[tuning]'; or set rank: 0") from error
    torch.manual_seed(seed)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        return get_peft_model(model, config)
