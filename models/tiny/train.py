"""Train a tiny vision-language model from scratch: `python -m uniprune.models.tiny.train --family llava`.

Five phases, counted in steps. The vision tower and projector learn the content of every visual token; then the whole
model learns to answer, to spell, to combine (adding or spelling, and then matching options), and to combine once more.
In half of the batches of the later phases visual tokens are dropped (background first, more or less strictly), so that
the model knows pruned prompts. Same seed, same device, same weights. Progress is saved every `--save-every` steps under
`--work`; the same command resumes.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from uniprune.synthetic import GRID

from .build import FAMILIES, QWEN, VISION_WIDTH, build_model, build_processor
from .data import COMPOSE, JOINT, POLISH, TASKS, Batches, SceneBatch
from .losses import TokenObjectives, imitation
from .packing import ATTENTION, answer_states, pack
from .teacher import Teacher
from .tokenizer import build_tokenizer
from .vision import VISION

PLANS = {"vision": (), "joint": JOINT, "polish": POLISH, "compose": COMPOSE, "refine": COMPOSE}
"""Phases in order -> tasks about each image."""
PHASES = tuple(PLANS)


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the weights besides the family."""

    seed: int = 0
    vision_steps: int = 600
    vision_batch: int = 40
    vision_rate: float = 4e-3
    joint_steps: int = 2400
    joint_batch: int = 24
    joint_rate: float = 3e-3
    polish_steps: int = 0
    polish_rate: float = 2e-3
    compose_steps: int = 900
    compose_rate: float = 2e-3
    refine_steps: int = 0
    refine_rate: float = 2e-3
    objectives: float = 0.3
    drop_share: float = 0.5
    easy_share: float = 0.1
    imitation: float = 0.0


class Trainer:
    """State of one training: model, objectives, optimisers and the number of the next step."""

    def __init__(self, family: str, recipe: Recipe, work: Path, device: str, language_from: Path | None) -> None:
        self.family, self.recipe, self.work, self.device = family, recipe, work, device
        self.tokenizer = build_tokenizer()
        self.model = build_model(family, recipe.seed).to(device)
        self.model.get_decoder().set_attn_implementation(ATTENTION)
        self.teacher = None if language_from is None else Teacher(language_from, device)
        if self.teacher is not None:
            self.teacher.start(self.model)
        has_class_token = family not in QWEN
        self.objectives = TokenObjectives(self.tokenizer, VISION_WIDTH[family] if has_class_token else None).to(device)
        self.batches = Batches(self.tokenizer, recipe.seed)
        if self.teacher is not None and recipe.imitation:
            self.teacher.scale(self.model, family, self.batches.at(0, 8).pixels.to(device))
        self.phase, self.step = "vision", 0
        self.optimizers = self._optimizers()
        self.metrics: dict[str, float] = {}

    # --- phases -------------------------------------------------------------------------------------------------
    def run(self, save_every: int, until: str = PHASES[-1]) -> None:
        """Train from the saved state to the end of phase `until`."""
        self._load()
        log = (self.work / "log.jsonl").open("a", encoding="utf-8")
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, refresh_per_second=1) as progress, log:
            for phase in PHASES[PHASES.index(self.phase) : PHASES.index(until) + 1]:
                if phase != self.phase:
                    self.phase, self.step, self.metrics = phase, 0, {}
                    self.optimizers = self._optimizers()
                total = getattr(self.recipe, f"{phase}_steps")
                bar = progress.add_task(f"{self.family} {phase}", total=total, completed=self.step, note="")
                started = time.monotonic()
                for step in range(self.step, total):
                    self._train_step(step, total)
                    self.step = step + 1
                    progress.update(bar, completed=self.step, note=f"loss {self.metrics['loss']:.3f}")
                    if self.step % 25 == 0 or self.step == total:
                        seconds = round(time.monotonic() - started, 1)
                        row = {"phase": phase, "step": self.step, "seconds": seconds} | {
                            k: round(v, 3) for k, v in self.metrics.items()
                        }
                        log.write(json.dumps(row) + "\n")
                        log.flush()
                    if self.step % save_every == 0 or self.step == total:
                        self._save()

    def _train_step(self, step: int, total: int) -> None:
        recipe, joint = self.recipe, self.phase != "vision"
        rate = getattr(recipe, f"{self.phase}_rate") * _schedule(step / total)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        number = step + sum(getattr(recipe, f"{phase}_steps") for phase in PHASES[: PHASES.index(self.phase)])
        easy = step < recipe.easy_share * total and self.phase in ("vision", "joint")
        size = recipe.joint_batch if joint else recipe.vision_batch
        batch = self.batches.at(number, size, 3 if easy else 6, PLANS[self.phase]).to(self.device)
        with torch.autocast(self.device.split(":")[0], torch.bfloat16):
            loss = self._loss(batch, joint, np.random.default_rng((recipe.seed, 1, number)))
        loss.backward()
        parameters = [p for o in self.optimizers for g in o.param_groups for p in g["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self._track(loss=loss)

    def _loss(self, batch: SceneBatch, joint: bool, rng: np.random.Generator) -> Tensor:
        features = VISION[self.family](self.model, batch.pixels)
        embeddings = self.model.get_input_embeddings().weight
        objectives: Tensor
        objectives, right = self.objectives(
            features.tokens,
            features.class_token,
            embeddings if joint else embeddings.detach(),
            batch.labels,
            batch.present,
        )
        self._track(**{f"token {k}": v for k, v in right.items()})
        if not joint:
            if self.teacher is not None and self.recipe.imitation:
                gap = imitation(features.tokens, self.teacher.tokens(batch.pixels), batch.labels)
                self._track(imitation=gap)
                objectives = objectives + self.recipe.imitation * gap
            return objectives
        keep = None
        if rng.random() < self.recipe.drop_share:
            keep = _droppable(batch.labels, rng)
        packed = pack(self.family, self.model, self.tokenizer, features, batch, keep)
        states = answer_states(self.model, packed, batch.ids.shape[1])
        answered = batch.target >= 0
        logits = self.model.get_output_embeddings()(states[answered]).float()
        gold, task = batch.target[answered], batch.task[answered]
        each = F.cross_entropy(logits, gold, reduction="none")
        total, weights = each.new_zeros(()), 0.0
        for number, (name, (weight, _)) in enumerate(TASKS.items()):
            mine = task == number
            if mine.any():
                total, weights = total + weight * each[mine].mean(), weights + weight
                if keep is None:
                    content = mine & (gold != self.tokenizer.eos_token_id)
                    self._track(**{name: (logits.argmax(-1) == gold)[content].float().mean()})
        mean: Tensor = total / weights
        return mean * 2 + self.recipe.objectives * objectives

    # --- bookkeeping --------------------------------------------------------------------------------------------
    def _track(self, **values: Tensor) -> None:
        for name, value in values.items():
            number = float(value.detach())
            if number == number:  # a batch may hold nothing of a kind
                self.metrics[name] = 0.95 * self.metrics.get(name, number) + 0.05 * number

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the matrices, AdamW for embeddings, vectors and training-only heads."""
        trained: list[nn.Module] = [self.objectives]
        if self.phase != "vision":
            trained.append(self.model)
        else:
            language = {id(p) for p in self.model.get_decoder().parameters()}
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        seen: set[int] = set()
        for module in [*trained, self.model]:
            for name, p in module.named_parameters():
                if id(p) in seen or (self.phase == "vision" and module is self.model and id(p) in language):
                    continue
                seen.add(id(p))
                plain = p.ndim == 2 and module is self.model and not any(k in name for k in ("embed", "lm_head"))
                (matrices if plain else others).append(p)
        return [
            torch.optim.Muon(matrices, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw", ns_steps=4),
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def _save(self) -> None:
        state = {
            "recipe": asdict(self.recipe),
            "phase": self.phase,
            "step": self.step,
            "model": self.model.state_dict(),
            "objectives": self.objectives.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "metrics": self.metrics,
        }
        partial = self.work / "state.partial"
        torch.save(state, partial)
        partial.replace(self.work / "state.pt")

    def _load(self) -> None:
        file = self.work / "state.pt"
        if not file.exists():
            return
        state: dict[str, Any] = torch.load(file, map_location=self.device, weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            raise SystemExit(
                f"{file} was made by another recipe ({state['recipe']}); choose another --work or delete it"
            )
        self.phase, self.step, self.metrics = state["phase"], state["step"], state["metrics"]
        self.optimizers = self._optimizers()
        self.model.load_state_dict(state["model"])
        self.objectives.load_state_dict(state["objectives"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def export(self, folder: Path) -> None:
        """Write the model in float16 with its processor, for `from_pretrained`."""
        self.model.get_decoder().set_attn_implementation("sdpa")
        self.model.to("cpu").half().save_pretrained(folder)
        build_processor(self.family).save_pretrained(folder)


def _schedule(done: float) -> float:
    """Return the learning rate's factor: warm-up over 5 %, flat, linear decay over the second half."""
    return min(1.0, (done + 1e-3) / 0.05) * (1.0 if done < 0.5 else max(0.02, 2 * (1 - done)))


def _droppable(labels: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw [B, K] sorted indices of visual tokens to keep: K uniform in 15–100 %, foreground preferred at random."""
    size, tokens = len(labels), GRID * GRID
    count = int(rng.uniform(0.15, 1.0) * tokens)
    foreground = ((labels[:, 0] > 0) | (labels[:, 2] > 0)).float().cpu().numpy()
    order = rng.random((size, tokens)) - rng.random((size, 1)) * 1.5 * foreground
    kept = np.sort(order.argsort(1)[:, :count], 1)
    return torch.from_numpy(kept).to(labels.device)


def main() -> None:
    """Train and export one model."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--output", type=Path, help="folder of the finished model (default: models/tiny/FAMILY)")
    parser.add_argument("--work", type=Path, help="folder of checkpoints and log (default: runs/tiny-FAMILY)")
    parser.add_argument("--until", choices=PHASES, default=PHASES[-1], help="last phase to train")
    parser.add_argument("--language-from", type=Path, help="tiny model whose trained language model to start from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--save-every", type=int, default=100)
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = Recipe(**{name: getattr(args, name) for name in asdict(Recipe())})
    work = args.work or Path("runs") / f"tiny-{args.family}"
    work.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(args.family, recipe, work, args.device, args.language_from)
    trainer.run(args.save_every, args.until)
    trainer.export(args.output or Path(__file__).parent / args.family)


if __name__ == "__main__":
    main()
