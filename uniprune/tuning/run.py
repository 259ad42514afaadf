"""One tuning run: one pair, one seed. Load, train, evaluate, record; the same command resumes from the last checkpoint.

DIR/<identity>/record.json   what was run and what came out (`TuningRecord`); written when the run is complete
DIR/<identity>/steps.jsonl   every step's decisions, losses and times
DIR/<identity>/checkpoint-*  state of an unfinished training
DIR/<identity>/model         the tuned adapter (or model), as `from_pretrained` reads it
"""

from __future__ import annotations

import math
import re
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from uniprune.errors import UserError
from uniprune.evaluation.environment import environment
from uniprune.evaluation.method_spec import code_hash, plain
from uniprune.modeling.loading import DTYPES, place
from uniprune.results.measurements import Strict
from uniprune.results.records import Environment
from uniprune.tuning.data import Sample
from uniprune.tuning.journal import StepLog
from uniprune.tuning.material import TuningData, load_model
from uniprune.tuning.memory import PeakMemory
from uniprune.tuning.scoring import Scorer
from uniprune.tuning.settings import PairChoice, Settings
from uniprune.tuning.trainer import REMEMBERED, Plan, PruningTrainer, collate
from uniprune.utils.files import explain_write, write_atomically
from uniprune.utils.hashing import stable_hash

NOT_IDENTITY = {
    *("pairs", "seeds", "sample_ratio", "token_ratio", "removal", "rescore"),  # in the identity as the pair has them
    *("model", "data", "test"),  # in it by content
    *("tasks", "task_folder", "task_limit", "save_every", "probe", "probe_points", "score_tokens"),
}
"""Settings that an identity has in another form, or that do not change the tuned weights."""


class KindScore(Strict):
    """Exact matches among the held-out items of one kind."""

    items: int
    """Items asked."""
    right: int
    """Items whose greedy answer is the expected one, token by token."""
    tokens: float
    """Share of answer tokens that are the likeliest one after the right beginning."""


class TuningRecord(Strict):
    """One finished run."""

    format: int = 1
    """Version of this layout."""
    identity: str
    """Hash of what determines the run; the folder's name."""
    label: str
    """The pair, as its user wrote it."""
    choice: PairChoice
    """The pair."""
    fields: dict[str, dict[str, Any]]
    """Every field of both strategies."""
    seed: int
    """Seed."""
    settings: Settings
    """The tuning file."""
    processes: int
    """Processes that trained together."""
    environment: Environment
    """Software and machine."""
    problems: list[str]
    """Rows of the data that were left out or shortened."""
    before: dict[str, KindScore]
    """Held-out scores of the model before tuning, by kind."""
    after: dict[str, KindScore]
    """And after."""
    memory: int | None
    """Largest growth of memory in training, bytes: of the GPU's allocator, or of this process."""


@dataclass(frozen=True)
class TuningRun:
    """One pair with one seed.

    Args:
        settings: the file. choice: the pair. seed: the seed. material: shared data. root: folder of all runs.
    """

    settings: Settings
    choice: PairChoice
    seed: int
    material: TuningData
    root: Path
    processes: int = 1

    @property
    def identity(self) -> str:
        """Hash of everything that determines the tuned weights."""
        pair = self.settings.pair(self.choice)
        about = self.settings.model_dump(exclude=NOT_IDENTITY)
        about |= {
            "weights": self.material.weights,
            "data": self.material.data,
            "ratios": [pair.sample_ratio, pair.token_ratio],
            "removal": self.removal,
            "rescore": self.rescore,
            "strategies": [self.choice.samples, self.choice.tokens],
            "fields": self.fields(),
            "code": code_hash([type(pair.samples), type(pair.tokens)]),
            "seed": self.seed,
            "processes": self.processes,
            "device": place().kind,
        }
        return stable_hash(plain(about))

    @property
    def removal(self) -> str:
        """Whether removed tokens leave the sequence ("physical") or the loss only ("mask")."""
        return self.choice.removal or self.settings.removal

    @property
    def rescore(self) -> int:
        """Epochs between two scorings of a sample."""
        return self.choice.rescore or self.settings.rescore

    @property
    def folder(self) -> Path:
        """Where this run is stored."""
        return self.root / self.identity

    def fields(self) -> dict[str, dict[str, Any]]:
        """Every field of both strategies."""
        pair = self.settings.pair(self.choice)
        return {part: plain(vars(getattr(pair, part))) for part in ("samples", "tokens")}

    def stored(self) -> TuningRecord | None:
        """The record of the finished run, or None. Raises UserError when it is damaged."""
        path = self.folder / "record.json"
        try:
            return TuningRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise UserError(f"{path} is not a record of this version; move {self.folder} away and run again") from error

    def perform(self, progress: Callable[[int, int], None] = lambda done, of: None) -> TuningRecord:
        """Train from the last checkpoint, or from the start, to the end; evaluate and record."""
        from transformers import PrinterCallback

        with explain_write(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.settings
        checkpoint = last_checkpoint(self.folder, [REMEMBERED] * (self.rescore > 1))
        arguments = self.arguments()
        model = load_model(settings.model, settings, arguments.device, self.seed)
        scorer = Scorer(model, settings.score_tokens, DTYPES[settings.score_dtype] if settings.score_dtype else None)
        scorer.verify(self.material.train[:2])
        before = exact_matches(scorer, self.material.test)
        main = arguments.process_index == 0
        journal = StepLog(self.folder / "steps.jsonl") if main else None
        if journal is not None:
            journal.rewind(step_of(checkpoint))
        trainer = PruningTrainer(
            plan=self.plan(scorer, journal, arguments),
            progress=progress,
            model=model,
            args=arguments,
            train_dataset=range(len(self.material.train)),
            data_collator=collate,
        )
        trainer.remove_callback(PrinterCallback)
        if checkpoint is not None and self.rescore > 1:
            trainer.remember(checkpoint)
        with PeakMemory(arguments.device) as memory, warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        trainer.save_model(str(self.folder / "model"))
        record = TuningRecord(
            identity=self.identity,
            label=self.choice.label,
            choice=self.choice,
            fields=self.fields(),
            seed=self.seed,
            settings=settings,
            processes=arguments.world_size,
            environment=environment(arguments.device.type),
            problems=self.material.problems,
            before=before,
            after=exact_matches(scorer, self.material.test),
            memory=memory.bytes,
        )
        if main:
            with explain_write(self.folder):
                write_atomically(self.folder / "record.json", record.model_dump_json(indent=1) + "\n")
                for folder in self.folder.glob("checkpoint-*"):
                    shutil.rmtree(folder)
        trainer.accelerator.wait_for_everyone()
        return record

    def arguments(self) -> Any:
        """The Trainer's arguments. Its batch is a whole step; the training step takes it apart."""
        from transformers import TrainingArguments

        settings = self.settings
        return TrainingArguments(
            output_dir=str(self.folder),
            per_device_train_batch_size=settings.batch * settings.accumulation,
            num_train_epochs=settings.epochs,
            learning_rate=settings.rate,
            lr_scheduler_type=settings.schedule,
            warmup_steps=settings.warmup,
            seed=self.seed,
            data_seed=self.seed,
            save_strategy="steps",
            save_steps=settings.save_every,
            save_total_limit=2,
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            use_cpu=not torch.cuda.is_available(),
            label_names=[],
        )

    def plan(self, scorer: Scorer, journal: StepLog | None, arguments: Any) -> Plan:
        """What the training step needs to know."""
        settings, train = self.settings, self.material.train
        pair = settings.pair(self.choice)
        reference = None
        if pair.tokens.reference and settings.reference:
            frozen = load_model(settings.reference, settings, arguments.device, 0, adapter=False)
            reference = Scorer(frozen, settings.score_tokens)
        per_step = settings.batch * settings.accumulation * arguments.world_size
        steps = math.ceil(len(train) / per_step) * settings.epochs
        drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
        return Plan(
            samples=train,
            pair=pair,
            physical=self.removal == "physical",
            batch=settings.batch,
            row_tokens=settings.row_tokens,
            seed=self.seed,
            scorer=scorer,
            reference=reference,
            rescore=self.rescore,
            journal=journal,
            probe=sorted(drawn[: settings.probe]),
            probe_every=max(1, steps // settings.probe_points),
        )


def last_checkpoint(folder: Path, more: Sequence[str] = ()) -> Path | None:
    """The newest complete checkpoint: one with its state file, which the Trainer writes last, and with `more` files."""
    needed = ("trainer_state.json", *more)
    done = [path for path in folder.glob("checkpoint-*") if all((path / name).exists() for name in needed)]
    return max(done, key=step_of, default=None)


def step_of(checkpoint: Path | None) -> int:
    """Optimizer steps a checkpoint holds."""
    found = re.search(r"(\d+)$", checkpoint.name) if checkpoint else None
    return int(found.group(1)) if found else 0


def exact_matches(scorer: Scorer, test: Sequence[Sample]) -> dict[str, KindScore]:
    """Held-out accuracy by kind ("" for all).

    Greedy decoding gives the expected answer exactly if every token of it is the likeliest after those before it, so
    one scoring forward tells, without generating.
    """
    if not test:
        return {}
    scores = scorer.score(test)
    found = {}
    for kind in sorted({sample.kind for sample in test} | {""}):
        mine = [score.right for sample, score in zip(test, scores, strict=True) if kind in ("", sample.kind)]
        right = sum(bool(score.all()) for score in mine)
        found[kind] = KindScore(items=len(mine), right=right, tokens=float(torch.cat(mine).double().mean()))
    return found
