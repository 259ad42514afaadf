"""Hugging Face's Trainer with a training step that scores, prunes and packs before it learns.

The data loader yields row numbers only. One step takes `accumulation` batches of every process; each batch, taken over
all processes, is pruned as one, and what is kept is dealt out evenly again. Every process comes to the same decision
from the same gathered scores, so nothing but scores is exchanged.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import Trainer, TrainerCallback

from uniprune.errors import UserError
from uniprune.tuning.data import Sample
from uniprune.tuning.journal import BatchLine, ProbeLine, StepLine, StepLog
from uniprune.tuning.pruning import Batch, Candidate, Pair, choose_samples, choose_tokens
from uniprune.tuning.scoring import Scorer, Scores, pack, packed_inputs, predicting
from uniprune.utils.hashing import seeded_generator

REMEMBERED = "scores.pt"
"""Remembered scores, in a checkpoint."""
PATIENCE = 10
"""Void steps in a row after which a training is given up."""


@dataclass(frozen=True)
class Plan:
    """Everything a pruned training needs beside the Trainer's own arguments.

    Attributes:
        samples: the data by place. pair: strategies. physical: whether removed tokens leave the sequence.
        batch: samples per process pruned together. row_tokens: tokens per packed row. seed: of random choices.
        scorer: of the model in training. reference: of the reference model, where there is one.
        rescore: epochs between two scorings of a sample; 1 scores it at every visit.
        journal: where steps are written (main process only). probe: places of the probe samples. probe_every: steps.
    """

    samples: Sequence[Sample]
    pair: Pair
    physical: bool
    batch: int
    row_tokens: int
    seed: int
    scorer: Scorer
    reference: Scorer | None
    rescore: int
    journal: StepLog | None
    probe: Sequence[int]
    probe_every: int


@dataclass
class Clock:
    """Seconds per span of one step."""

    device: torch.device
    spans: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time a part of the step."""
        start = self.now()
        yield
        self.spans[name] = self.spans.get(name, 0.0) + self.now() - start

    def now(self) -> float:
        """Seconds, once the device has caught up."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def collate(places: Sequence[int]) -> dict[str, Tensor]:
    """A batch of places in the data."""
    return {"place": torch.tensor(places)}


class PruningTrainer(Trainer):
    """A Trainer whose steps prune. Build it with `train_dataset=range(len(samples))` and `data_collator=collate`."""

    def __init__(
        self, *, plan: Plan, progress: Callable[[int, int], None] = lambda done, of: None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.plan, self.progress = plan, progress
        self.void = 0
        self.remembered: dict[int, Scores] = {}
        self.pending: StepLine | None = None
        self.clock = Clock(self.args.device)
        self.started = 0.0
        self.add_callback(_Write(self))

    def training_step(self, model: Any, inputs: Mapping[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """One optimizer step's worth: score, choose, pack, forward and backward."""
        model.train()
        self.clock = Clock(self.args.device)
        self.started = self.clock.now()
        places = self.accelerator.gather(inputs["place"].to(self.args.device)).tolist()
        scores = self._score(places)
        size = self.plan.batch * self.args.world_size
        lines, kept = [], []
        for start in range(0, len(places), size):
            group = places[start : start + size]
            line, chosen = self._prune(group, scores[start : start + size], f"{self.state.global_step}.{start}")
            lines.append(line)
            kept += chosen
        with self.clock.span("train"):
            loss = self._learn(model, kept)
        all_ = [self.plan.samples[p] for p in places]
        self.pending = StepLine(
            step=self.state.global_step,
            loss=float(loss) if math.isfinite(loss) else None,
            tokens=sum(len(s.ids) for s in all_),
            answers=sum(len(s.answer) for s in all_),
            run=sum(len(s.ids) for s, _ in kept),
            trained=sum(len(s.answer) for s, _ in kept),
            seconds=dict(self.clock.spans),
            batches=lines,
        )
        return loss if math.isfinite(loss) else torch.zeros_like(loss)

    def remember(self, checkpoint: Path) -> None:
        """Take the scores up again that a checkpoint holds."""
        stored = torch.load(checkpoint / REMEMBERED, weights_only=True)
        self.remembered = {place: Scores(*one) for place, one in stored.items()}

    def floating_point_ops(self, inputs: Any) -> int:
        """Not estimated: the journal counts tokens."""
        return 0

    def _score(self, places: Sequence[int]) -> list[Scores | None]:
        """Scores of all gathered places: fresh ones in every `rescore`-th epoch, remembered ones in between."""
        if not self.plan.pair.needs_scores:
            return [None] * len(places)
        with self.clock.span("score"):
            fresh = int(self.state.epoch or 0) % self.plan.rescore == 0
            todo = [place for place in places if fresh or place not in self.remembered]
            mine = todo[self.args.process_index :: self.args.world_size]
            scored = list(zip(mine, self.plan.scorer.score([self.plan.samples[p] for p in mine]), strict=True))
            found = dict(gather_object(scored) if self.args.world_size > 1 else scored)
            if self.plan.rescore > 1:
                self.remembered |= found
            return [found.get(place) or self.remembered[place] for place in places]

    def _prune(
        self, group: Sequence[int], scores: Sequence[Scores | None], key: str
    ) -> tuple[BatchLine, list[tuple[Sample, float]]]:
        """Decide on one batch."""
        plan = self.plan
        samples = [plan.samples[p] for p in group]
        candidates = [
            Candidate(s.index, len(s.ids), len(s.answer), *((None, None) if x is None else (x.nll, x.entropy)))
            for s, x in zip(samples, scores, strict=True)
        ]
        with self.clock.span("samples"):
            batch = choose_samples(plan.pair, candidates, seeded_generator(plan.seed, "samples", key))
        removed: dict[int, list[int]] = {}
        kept: list[tuple[Sample, float]] = []
        with self.clock.span("tokens"):
            quadrants = [None] * len(group) if batch.quadrants is None else batch.quadrants.tolist()
            losing = [c.position for c in batch.chosen if plan.pair.tokens.concerns(quadrants[c.position])]
            measured = self._measure({p: samples[p] for p in losing}, {p: scores[p] for p in losing})
            for one in batch.chosen:
                sample = samples[one.position]
                if one.position in measured:
                    seed = seeded_generator(plan.seed, "tokens", key, sample.index)
                    left = choose_tokens(plan.pair, len(sample.answer), measured[one.position], seed)
                    removed[one.position] = sorted(set(range(len(sample.answer))) - set(left))
                    sample = sample.without(left) if plan.physical else sample.masked(left)
                kept.append((sample, one.weight))
        return _line(candidates, batch, removed), kept

    def _measure(
        self, samples: Mapping[int, Sample], scores: Mapping[int, Scores | None]
    ) -> dict[int, dict[str, Tensor]]:
        """What the token strategy declared, for samples that lose tokens, by place in the batch."""
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
            for place, one in zip(samples, plan.reference.score(list(samples.values())), strict=True):
                measured[place]["reference"] = one.nll
        if strategy.attention or strategy.states:
            for place, sample in samples.items():
                measured[place] |= plan.scorer.tokens(sample, strategy)
        return measured

    def _learn(self, model: Any, kept: Sequence[tuple[Sample, float]]) -> Tensor:
        """Forward and backward over this process's part of the kept samples, in packed rows; the step's mean loss.

        A loss that is not finite, on any process, voids the step: no gradient is left for the optimizer.
        """
        world, rank = self.args.world_size, self.args.process_index
        trained = sum(len(sample.answer) for sample, _ in kept)
        # A process without a sample of its own still takes part in the exchange of gradients, with weight 0.
        mine = list(kept[rank::world]) or [(kept[0][0], 0.0)]
        rows = pack([len(sample.ids) for sample, _ in mine], self.plan.row_tokens)
        total = torch.zeros((), device=self.args.device)
        for number, row in enumerate(rows):
            last = number == len(rows) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                loss = row_loss(model, [mine[i] for i in row]) / trained
                self.accelerator.backward(loss * world)
            total += loss.detach()
        total = self.accelerator.reduce(total, "sum")
        if not math.isfinite(total):
            model.zero_grad()
            self.void += 1
            if self.void >= PATIENCE:
                raise UserError(
                    f"the loss was not finite in {self.void} steps in a row (last rows: "
                    f"{[s.index for s, _ in kept][:8]}); lower the rate, or use another precision. "
                    "The checkpoints are kept"
                )
        else:
            self.void = 0
        return total


def row_loss(model: Any, row: Sequence[tuple[Sample, float]]) -> Tensor:
    """Sum of weighted cross-entropies over the answer tokens of samples packed into one row."""
    samples = [sample for sample, _ in row]
    device = next(model.parameters()).device
    at = predicting([samples]).to(device)
    inner = getattr(model, "module", model)
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    # Only the logits that predict answer tokens are computed where the model can leave out the others.
    sparing = "logits_to_keep" in inspect.signature(inner.forward).parameters
    extra = {"logits_to_keep": at} if sparing else {}
    logits = model(**packed_inputs([samples], device), use_cache=False, **extra).logits[0]
    targets = torch.cat([sample.ids[sample.answer] for sample in samples]).to(device)
    weights = torch.cat([torch.full((len(s.answer),), w) for s, w in row]).to(device)
    each = torch.nn.functional.cross_entropy((logits if sparing else logits[at]).float(), targets, reduction="none")
    return (each * weights).sum()


class _Write(TrainerCallback):
    """Writes the journal once the optimizer has stepped, looks at the probe samples, keeps scores with checkpoints."""

    def __init__(self, trainer: PruningTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        journal = self.trainer.plan.journal
        if journal is not None and not journal.probes:
            self._probe(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer, plan = self.trainer, self.trainer.plan
        trainer.progress(state.global_step, state.max_steps)
        if plan.journal is None or trainer.pending is None:
            return
        step = round(trainer.clock.now() - trainer.started, 6)
        seconds = {name: round(value, 6) for name, value in trainer.pending.seconds.items()} | {"step": step}
        plan.journal.append(trainer.pending.model_copy(update={"seconds": seconds}))
        if state.global_step % plan.probe_every == 0 or state.global_step == state.max_steps:
            self._probe(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.process_index == 0 and self.trainer.plan.rescore > 1:
            scores = {place: (s.nll, s.entropy, s.right) for place, s in self.trainer.remembered.items()}
            torch.save(scores, Path(args.output_dir) / f"checkpoint-{state.global_step}" / REMEMBERED)

    def _probe(self, step: int) -> None:
        plan = self.trainer.plan
        if not plan.probe or plan.journal is None:
            return
        scores = plan.scorer.score([plan.samples[p] for p in plan.probe])
        ppl = [round(math.exp(min(700.0, float(s.nll.double().mean()))), 4) for s in scores]
        entropy = [round(float(s.entropy.double().mean()), 4) for s in scores]
        plan.journal.append(ProbeLine(step=step, perplexity=ppl, entropy=entropy))


def _line(candidates: Sequence[Candidate], batch: Batch, removed: dict[int, list[int]]) -> BatchLine:
    """The journal's account of one batch."""
    return BatchLine(
        index=[c.index for c in candidates],
        kept=[c.position for c in batch.chosen],
        removed=removed,
        quadrant=None if batch.quadrants is None else batch.quadrants.tolist(),
        perplexity=None if batch.perplexity is None else [round(x, 4) for x in batch.perplexity.tolist()],
        entropy=None if batch.entropy is None else [round(x, 4) for x in batch.entropy.tolist()],
        short=batch.wanted < 1,
    )
