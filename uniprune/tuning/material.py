"""What the runs of one tuning file share: model, tokenizer and data, loaded from where the file says they are."""

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
from uniprune.modeling.loading import DTYPES, commit_of, fingerprint, place, source_of
from uniprune.synthetic.letters import held_out_set, training_set
from uniprune.tuning.data import Problems, Sample, read, samples
from uniprune.tuning.settings import Settings
from uniprune.utils.hashing import stable_hash

GENERATED = "generated"
"""Name of the embedded set in a tuning file."""


@dataclass(frozen=True)
class TuningData:
    """What all runs of a file share.

    Attributes:
        tokenizer: of the model. train, test: samples. problems: a line per sort of row left out.
        data: hash of all samples. weights: hash or commit of the base model.
    """

    tokenizer: Any
    train: list[Sample]
    test: list[Sample]
    problems: list[str]
    data: str
    weights: str


def material(settings: Settings, console: Console) -> TuningData:
    """Load the tokenizer and all data once.

    Raises:
        UserError: the model or the data cannot be read.
    """
    tokenizer = fetch("AutoTokenizer", settings.model)
    train, problems = load(settings.data, training_set, tokenizer, settings.cutoff, console)
    test, unseen = load(settings.test, held_out_set, tokenizer, settings.cutoff, console)
    for line in [*problems, *(f"test data: {line}" for line in unseen)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    told = [[s.ids.tolist(), s.answer.tolist(), s.kind] for s in [*train, *test]]
    digest = stable_hash([len(train), *told])
    folder = Path(settings.model)
    fetch("AutoConfig", settings.model)
    weights = fingerprint(folder) if folder.is_dir() else commit_of(settings.model) or settings.model
    return TuningData(tokenizer, train, test, problems, digest, weights)


def load(
    names: Sequence[str], generate: Callable[[], list[Any]], tokenizer: Any, cutoff: int, console: Console
) -> tuple[list[Sample], list[str]]:
    """Samples of files, folders or the embedded set, numbered through, and a line per sort of row left out."""
    made: list[Sample] = []
    lines: list[str] = []
    start = 0
    for name in names:
        problems = Problems()
        rows = generate() if name == GENERATED else read(Path(name), problems)
        shown = track(rows, f"tokenising {name}", console=console, transient=True, disable=not console.is_terminal)
        try:
            made += samples(shown, tokenizer, cutoff, problems, start)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        lines += [f"{name}: {line}" if len(names) > 1 else line for line in problems.lines()]
        start += len(rows)
    return made, lines


def fetch(factory: str, source: str, **kwargs: Any) -> Any:
    """`transformers.<factory>.from_pretrained`, its failures told in the user's terms."""
    import transformers

    try:
        return getattr(transformers, factory).from_pretrained(source_of(source), **kwargs)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"model {source!r} cannot be loaded ({reason}); give a folder with weights and tokenizer"
        ) from error


def load_model(source: str, settings: Settings, device: torch.device, seed: int, adapter: bool = True) -> Any:
    """A causal language model, with fresh LoRA adapters for training unless told otherwise."""
    model = fetch("AutoModelForCausalLM", source, dtype=DTYPES[place(device=device.type).dtype])
    model = model.to(device)
    if not (adapter and settings.rank):
        return model
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UserError("LoRA needs the package peft: pip install -e '.[tuning]'; or set rank: 0") from error
    torch.manual_seed(seed)
    adapter_config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        return get_peft_model(model, adapter_config)
