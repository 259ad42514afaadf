"""Hugging Face's Trainer with a training step that scores, prunes and packs before it learns.

The data loader yields row numbers only. One step takes `accumulation` batches of every process, gathered from
all of them; each batch, or those of all processes together, is pruned as one, and the kept samples are distributed
evenly again. Every process makes the same decision from the same gathered scores, so only scores are exchanged.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import Trainer, TrainerCallback

from uniprune.errors import UserError
from uniprune.tuning.instruction_data import Sample
from uniprune.tuning.packing import pack, row_loss
from uniprune.tuning.pruning import (
    Candidate,
    Pair,
    PrunedBatch,
    choose_samples,
    choose_tokens,
    plane_axes,
    stored_axes,
    units,
)
from uniprune.tuning.scoring import Scorer, Scores
from uniprune.tuning.step_log import BatchLine, ProbeLine, StepLine, StepLog
from uniprune.tuning.step_timer import StepTimer
from uniprune.utils.files import write_atomically
from uniprune.utils.hashing import seeded_generator

REMEMBERED = "scores.pt"
"""File of remembered scores in a checkpoint."""
PATIENCE = 10
"""Void steps in a row after which a training stops."""


@dataclass(frozen=True)
class Plan:
    """Settings of a pruned training, in addition to the Trainer's own arguments.

    Attributes:
        samples: the data, by place.
        pair: strategies.
        physical: whether removed tokens leave the sequence.
        batch: samples of a process that are pruned together.
        joined: True if those of all processes are one batch.
        row_tokens: tokens per packed row.
        seed: of random choices.
        scorer: of the model in training.
        reference: of the reference model, if the token strategy needs one.
        rescore: epochs between two scorings of a sample; 1 scores it at every visit.
        step_log: where steps are stored; None in all processes but the main one.
        probe: places of the probe samples.
        probe_every: optimizer steps between two measurements of the probe samples.
    """

    samples: Sequence[Sample]
    pair: Pair
    physical: bool
    batch: int
    joined: bool
    row_tokens: int
    seed: int
    scorer: Scorer
    reference: Scorer | None
    rescore: int
    step_log: StepLog | None
    probe: Sequence[int]
    probe_every: int


def collate(places: Sequence[int]) -> dict[str, Tensor]:
    """Collate places in the data into a batch."""
    return {"place": torch.tensor(places)}


class PruningTrainer(Trainer):  # type: ignore[misc]  # transformers is not followed, so its classes are Any
    """A Trainer whose steps prune, to be built with `train_dataset=range(len(samples))` and `data_collator=collate`."""

    def __init__(
        self, *, plan: Plan, progress: Callable[[int, int], None] = lambda done, of: None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.plan, self.progress = plan, progress
        self.void_steps = 0
        self.remembered: dict[int, Scores] = {}
        self.pending: StepLine | None = None
        self.timer = StepTimer(self.args.device)
        self.add_callback(StepWriter(self))

    def training_step(self, model: Any, inputs: Mapping[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Score, choose, pack, forward and backward for one optimizer step; return its loss."""
        model.train()
        self.timer = StepTimer(self.args.device)
        places = self.accelerator.gather(inputs["place"].to(self.args.device)).tolist()
        scores = self._score(places)
        lines, kept = [], []
        for unit in units(len(places), self.plan.batch, self.args.world_size, joined=self.plan.joined):
            group = places[unit.start : unit.stop]
            line, chosen = self._prune(group, scores[unit.start : unit.stop], f"{self.state.global_step}.{unit.start}")
            lines.append(line)
            kept += chosen
        with self.timer.span("train"):
            loss = self._learn(model, kept)
        samples = [self.plan.samples[p] for p in places]
        self.pending = StepLine(
            step=self.state.global_step,
            loss=float(loss) if math.isfinite(loss) else None,
            tokens=sum(len(s.ids) for s in samples),
            answers=sum(len(s.answer) for s in samples),
            run=sum(len(s.ids) for s, _ in kept),
            trained=sum(len(s.answer) for s, _ in kept),
            seconds=dict(self.timer.spans),
            batches=lines,
        )
        return loss if math.isfinite(loss) else torch.zeros_like(loss)

    def remember(self, checkpoint: Path) -> None:
        """Restore the scores that a checkpoint holds."""
        stored = torch.load(checkpoint / REMEMBERED, weights_only=True)
        self.remembered = {place: Scores(*values) for place, values in stored.items()}

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: the step log counts tokens instead."""
        return 0

    def _score(self, places: Sequence[int]) -> list[Scores | None]:
        """Return the scores of all gathered places: new in every `rescore`-th epoch, remembered in between."""
        if not self.plan.pair.needs_scores:
            return [None] * len(places)
        with self.timer.span("score"):
            fresh = int(self.state.epoch or 0) % self.plan.rescore == 0
            unscored = [place for place in places if fresh or place not in self.remembered]
            own = unscored[self.args.process_index :: self.args.world_size]
            scored = list(zip(own, self.plan.scorer.score([self.plan.samples[p] for p in own]), strict=True))
            scores = dict(gather_object(scored) if self.args.world_size > 1 else scored)
            if self.plan.rescore > 1:
                self.remembered |= scores
            return [scores.get(place) or self.remembered[place] for place in places]

    def _prune(
        self, group: Sequence[int], scores: Sequence[Scores | None], key: str
    ) -> tuple[BatchLine, list[tuple[Sample, float]]]:
        """Prune one batch; return its line for the log and the kept samples with the weights of their losses."""
        plan = self.plan
        samples = [plan.samples[p] for p in group]
        candidates = [
            Candidate(
                index=sample.index,
                length=len(sample.ids),
                answer=len(sample.answer),
                nll=None if score is None else score.nll,
                entropy=None if score is None else score.entropy,
            )
            for sample, score in zip(samples, scores, strict=True)
        ]
        with self.timer.span("samples"):
            batch = choose_samples(plan.pair, candidates, seeded_generator(plan.seed, "samples", key))
        removed: dict[int, list[int]] = {}
        kept: list[tuple[Sample, float]] = []
        with self.timer.span("tokens"):
            quadrants = [None] * len(group) if batch.quadrants is None else batch.quadrants.tolist()
            losing = [c.position for c in batch.chosen if plan.pair.tokens.applies_to(quadrants[c.position])]
            measured = self._measure({p: samples[p] for p in losing}, {p: scores[p] for p in losing})
            for choice in batch.chosen:
                sample = samples[choice.position]
                if choice.position in measured:
                    generator = seeded_generator(plan.seed, "tokens", key, sample.index)
                    left = choose_tokens(plan.pair, len(sample.answer), measured[choice.position], generator)
                    removed[choice.position] = sorted(set(range(len(sample.answer))) - set(left))
                    sample = sample.shortened(left) if plan.physical else sample.masked(left)
                kept.append((sample, choice.weight))
        return _line(candidates, batch, removed), kept

    def _measure(
        self, samples: Mapping[int, Sample], scores: Mapping[int, Scores | None]
    ) -> dict[int, dict[str, Tensor]]:
        """Return what the token strategy declares, by name, for each sample that loses tokens, by place."""
        strategy, plan = self.plan.pair.tokens, self.plan
        measured: dict[int, dict[str, Tensor]] = {place: {} for place in samples}
        if not samples:
            return measured
        if strategy.scores:
            lacking = [place for place in samples if scores[place] is None]
            late = dict(zip(lacking, plan.scorer.score([samples[p] for p in lacking]), strict=True))
            for place in samples:
                measured[place]["nll"] = (scores[place] or late[place]).nll
        if strategy.reference and plan.reference is not None:
            for place, score in zip(samples, plan.reference.score(list(samples.values())), strict=True):
                measured[place]["reference"] = score.nll
        if strategy.attention or strategy.states:
            for place, sample in samples.items():
                measured[place] |= plan.scorer.tokens(sample, strategy)
        return measured

    def _learn(self, model: Any, kept: Sequence[tuple[Sample, float]]) -> Tensor:
        """Run forward and backward over this process's part of the kept samples, in packed rows; return the mean loss.

        A loss that is not finite, in any process, voids the step: no gradient is left for the optimizer.

        Raises:
            UserError: too many steps in a row were void.
        """
        world, rank = self.args.world_size, self.args.process_index
        trained = sum(len(sample.answer) for sample, _ in kept)
        # A process without a sample of its own still takes part in the exchange of gradients, with weight 0.
        own = list(kept[rank::world]) or [(kept[0][0], 0.0)]
        rows = pack([len(sample.ids) for sample, _ in own], self.plan.row_tokens)
        total = torch.zeros((), device=self.args.device)
        for number, row in enumerate(rows):
            last = number == len(rows) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                loss = row_loss(model, [own[i] for i in row]) / trained
                self.accelerator.backward(loss * world)
            total += loss.detach()
        mean: Tensor = self.accelerator.reduce(total, "sum")
        if not math.isfinite(mean):
            model.zero_grad()
            self.void_steps += 1
            if self.void_steps >= PATIENCE:
                raise UserError(
                    f"the loss was not finite in {self.void_steps} steps in a row (last rows: "
                    f"{[s.index for s, _ in kept][:8]}); lower the rate, or use another precision. "
                    "The checkpoints are kept"
                )
        else:
            self.void_steps = 0
        return mean


class StepWriter(TrainerCallback):  # type: ignore[misc]  # as above
    """A callback that stores each step once the optimizer has stepped, measures the probe samples, and adds remembered
    scores to checkpoints.
    """

    def __init__(self, trainer: PruningTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the probe samples before the first step."""
        log = self.trainer.plan.step_log
        if log is not None and not log.probes:
            self._probe(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Store the step."""
        trainer, plan = self.trainer, self.trainer.plan
        trainer.progress(state.global_step, state.max_steps)
        if plan.step_log is None or trainer.pending is None:
            return
        seconds = trainer.pending.seconds | {"step": trainer.timer.elapsed()}
        rounded = {name: round(value, 6) for name, value in seconds.items()}
        plan.step_log.append(trainer.pending.model_copy(update={"seconds": rounded}))
        if state.global_step % plan.probe_every == 0 or state.global_step == state.max_steps:
            self._probe(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the remembered scores to the checkpoint."""
        if args.process_index == 0 and self.trainer.plan.rescore > 1:
            scores = {place: (s.nll, s.entropy, s.right) for place, s in self.trainer.remembered.items()}
            file = io.BytesIO()
            torch.save(scores, file)
            write_atomically(Path(args.output_dir) / f"checkpoint-{state.global_step}" / REMEMBERED, file.getvalue())

    def _probe(self, step: int) -> None:
        plan = self.trainer.plan
        if not plan.probe or plan.step_log is None:
            return
        scores = plan.scorer.score([plan.samples[p] for p in plan.probe])
        perplexity, entropy = stored_axes(plane_axes(scores))
        plan.step_log.append(ProbeLine(step=step, perplexity=perplexity, entropy=entropy))


def _line(candidates: Sequence[Candidate], batch: PrunedBatch, removed: dict[int, list[int]]) -> BatchLine:
    """Return a batch's line for the step log."""
    perplexity, entropy = (None, None) if batch.axes is None else stored_axes(batch.axes)
    return BatchLine(
        index=[c.index for c in candidates],
        kept=[c.position for c in batch.chosen],
        removed=removed,
        quadrant=None if batch.quadrants is None else batch.quadrants.tolist(),
        perplexity=perplexity,
        entropy=entropy,
        short=batch.exact_count < 1,
    )
