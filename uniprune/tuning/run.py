"""One tuning run: one pair with one seed. Load, train, evaluate, record; resume from the last checkpoint.

DIR/<identity>/record.json   settings and results (`TuningRecord`), written when the run is complete
DIR/<identity>/steps.jsonl   decisions, losses and times of every step (`StepLog`)
DIR/<identity>/checkpoint-*  state of an unfinished training
DIR/<identity>/model         the tuned LoRA adapter or model, as `from_pretrained` reads it
"""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from uniprune.errors import UserError
from uniprune.evaluation.code_hash import code_hash
from uniprune.evaluation.environment import environment
from uniprune.evaluation.method_spec import plain
from uniprune.modeling.loading import DTYPES, place
from uniprune.results.measurements import Strict
from uniprune.results.records import Environment
from uniprune.tuning.accuracy import KindScore, exact_matches
from uniprune.tuning.checkpoints import last_checkpoint, step_of
from uniprune.tuning.scoring import Scorer
from uniprune.tuning.settings import PairChoice, Settings
from uniprune.tuning.step_log import StepLog
from uniprune.tuning.trainer import REMEMBERED, Plan, PruningTrainer, collate
from uniprune.tuning.tuning_data import TuningData, load_model
from uniprune.utils.files import explain_write, write_atomically
from uniprune.utils.hashing import stable_hash
from uniprune.utils.json_text import from_json, to_json

NOT_IDENTITY = {
    *("pairs", "seeds", "sample_ratio", "token_ratio", "removal", "rescore"),  # hashed with the pair's own values
    *("model", "data", "test"),  # hashed by content
    *("tasks", "task_folder", "task_limit", "save_every", "probe", "probe_points", "score_tokens"),
}
"""Settings that are hashed in another form, or that do not change the tuned weights."""


class TuningRecord(Strict):
    """One finished run."""

    format: Literal[2] = 2
    """Version of this layout."""
    identity: str
    """Hash of everything that determines the tuned weights; the folder's name."""
    label: str
    """The pair's label in the tables."""
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
    """One line per reason why rows of the data were left out or shortened."""
    before: dict[str, KindScore]
    """Held-out scores of the model before tuning, by kind."""
    after: dict[str, KindScore]
    """Held-out scores after tuning, by kind."""
    memory: int | None
    """Peak GPU memory of the training, bytes; null on the CPU, where a process's peak cannot be reset between runs."""


@dataclass(frozen=True)
class TuningRun:
    """One pair with one seed.

    Attributes:
        settings: the tuning file.
        choice: the pair.
        seed: the seed.
        data: inputs of all runs of the file.
        root: folder of all runs.
        processes: processes that train together.
    """

    settings: Settings
    choice: PairChoice
    seed: int
    data: TuningData
    root: Path
    processes: int = 1

    @property
    def identity(self) -> str:
        """Return the hash of everything that determines the tuned weights."""
        pair = self.settings.pair(self.choice)
        content = self.settings.model_dump(exclude=NOT_IDENTITY)
        content |= {
            "weights": self.data.weights,
            "data": self.data.samples_hash,
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
        return stable_hash(plain(content))

    @property
    def removal(self) -> str:
        """Return whether removed tokens leave the sequence ("physical") or only the loss ("mask")."""
        return self.choice.removal or self.settings.removal

    @property
    def rescore(self) -> int:
        """Return the epochs between two scorings of a sample."""
        return self.choice.rescore or self.settings.rescore

    @property
    def folder(self) -> Path:
        """Return the folder of this run."""
        return self.root / self.identity

    def fields(self) -> dict[str, dict[str, Any]]:
        """Return every field of both strategies."""
        pair = self.settings.pair(self.choice)
        return {part: plain(vars(getattr(pair, part))) for part in ("samples", "tokens")}

    def stored(self) -> TuningRecord | None:
        """Return the record of the finished run, or None.

        Raises:
            UserError: the record is damaged or of another version.
        """
        path = self.folder / "record.json"
        try:
            return TuningRecord.model_validate(from_json(path.read_bytes()))
        except FileNotFoundError:
            return None
        except ValueError as error:  # also pydantic's
            raise UserError(f"{path} is not a record of this version; move {self.folder} away and run again") from error

    def perform(self, progress: Callable[[int, int], None] = lambda done, of: None) -> TuningRecord:
        """Train to the end, from the last checkpoint or from the start; evaluate and store the record.

        Args:
            progress: called with the number of completed and of all optimizer steps.

        Raises:
            UserError: the model cannot be trained, or the disk is full; everything stored before is kept.
        """
        from transformers import PrinterCallback

        with explain_write(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.settings
        checkpoint = last_checkpoint(self.folder, [REMEMBERED] * (self.rescore > 1))
        arguments = self.arguments()
        model = load_model(settings.model, settings, arguments.device, self.seed)
        scorer = Scorer(model, settings.score_tokens, DTYPES[settings.score_dtype] if settings.score_dtype else None)
        scorer.verify(self.data.train[:2])
        before = exact_matches(scorer, self.data.test)
        main = arguments.process_index == 0
        step_log = self.step_log() if main else None
        if step_log is not None:
            step_log.rewind(step_of(checkpoint))
        trainer = PruningTrainer(
            plan=self.plan(scorer, step_log, arguments),
            progress=progress,
            model=model,
            args=arguments,
            train_dataset=range(len(self.data.train)),
            data_collator=collate,
        )
        trainer.remove_callback(PrinterCallback)
        if checkpoint is not None and self.rescore > 1:
            trainer.remember(checkpoint)
        gpu = arguments.device if arguments.device.type == "cuda" else None
        if gpu is not None:
            torch.cuda.reset_peak_memory_stats(gpu)
        with explain_write(self.folder), warnings.catch_warnings():
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
            problems=self.data.problems,
            before=before,
            after=exact_matches(scorer, self.data.test),
            memory=None if gpu is None else torch.cuda.max_memory_allocated(gpu),
        )
        if main:
            with explain_write(self.folder):
                write_atomically(self.folder / "record.json", to_json(record.model_dump(mode="json"), indent=1) + "\n")
                for folder in self.folder.glob("checkpoint-*"):
                    shutil.rmtree(folder)
        trainer.accelerator.wait_for_everyone()
        return record

    def step_log(self) -> StepLog:
        """Open the log of this run's steps, which only reads it."""
        return StepLog(self.folder / "steps.jsonl")

    def arguments(self) -> Any:
        """Return the Trainer's arguments. Its batch holds all batches of an optimizer step."""
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

    def plan(self, scorer: Scorer, step_log: StepLog | None, arguments: Any) -> Plan:
        """Return the inputs of the training steps."""
        settings, train = self.settings, self.data.train
        pair = settings.pair(self.choice)
        reference = None
        if pair.tokens.reference and settings.reference:
            frozen = load_model(settings.reference, settings, arguments.device, 0, lora=False)
            reference = Scorer(frozen, settings.score_tokens)
        per_step = settings.batch * settings.accumulation * arguments.world_size
        steps = math.ceil(len(train) / per_step) * settings.epochs
        shuffled = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
        return Plan(
            samples=train,
            pair=pair,
            physical=self.removal == "physical",
            batch=settings.batch,
            joined=settings.unit == "global",
            row_tokens=settings.row_tokens,
            seed=self.seed,
            scorer=scorer,
            reference=reference,
            rescore=self.rescore,
            step_log=step_log,
            probe=sorted(shuffled[: settings.probe]),
            probe_every=max(1, steps // settings.probe_points),
        )
