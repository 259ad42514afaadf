"""Training batches: images with dense labels, and many questions about each, packed after its visual tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from uniprune.synthetic import CHARACTERS, COLORS, SHAPES, Layout, Question, ask, sample_layout
from uniprune.synthetic.draw import render_array

from .build import MEAN, STD

Rng = np.random.Generator

TASKS = {
    "yes-no": (1.5, ("exists", "exists", "attribute", "count-check", "sum-check", "word-check")),
    "choice": (1.5, ("color-of", "shape-of", "count", "sum", "character")),
    "number": (1.0, ("count", "count", "sum")),
    "read": (0.7, ("read",)),
    "spell": (1.0, ("character",)),
    "open": (1.0, ("absent-color",)),
    "instruct": (0.5, ("color-of", "shape-of")),
    "describe": (1.0, ("describe",)),
    "check": (1.5, ("sum-check", "sum-check", "count-check")),
    "match": (2.0, ("sum", "character", "count")),
}
"""Task -> (weight in the loss, kinds of questions it draws from). The loss is a mean over tasks, not over tokens."""

JOINT = ("read", "describe", *("yes-no",) * 4, *("choice",) * 3, *("number",) * 3, "open", "open", "instruct")
POLISH = ("read", "spell", "spell", *("yes-no",) * 4, *("choice",) * 5, *("number",) * 3, "open", "instruct")
COMPOSE = ("read", "spell", *("check",) * 4, *("match",) * 4, "yes-no", "choice", "number", "instruct")
"""Tasks about one image in each phase, in random order and as many as fit."""
_YES_NO = "Please answer yes or no."
_SHORT = "Answer the question using a single word or phrase."
_INTEGER = (
    "Hint: Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, "
    "at the end."
)
_LETTER = "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."


def wrap(task: str, question: Question, rng: Rng) -> tuple[str, str]:
    """Word a question as (prompt, answer), in one of the forms that VLMEvalKit and its datasets use for the task."""
    text, form = question.text, rng.random()
    if task in ("choice", "match"):
        options, letter = question.options(rng, int(rng.choice([4, 4, 4, 2, 3, 5])))
        if form < 0.65:
            lines = "".join(f"{k}. {o}\n" for k, o in zip("ABCDE", options, strict=False))
            end = "Please select the correct answer from the options above. \n"
            return f"Question: {text}\nOptions:\n{lines}{end}", letter
        if form < 0.8:
            lines = "\n".join(f"{k}. {o}" for k, o in zip("ABCDE", options, strict=False))
            return f"{text}\n{lines}\nAnswer with the option's letter from the given choices directly.", letter
        lines = "\n".join(f"({k}) {o}" for k, o in zip("ABCDE", options, strict=False))
        return f"{_LETTER}\nQuestion: {text}\nChoices:\n{lines}", letter
    if task in ("yes-no", "check"):
        suffix = ("", f" {_YES_NO}", f" {_YES_NO} {_SHORT}", f"\n{_SHORT}")[int(form * 4)]
        return text + suffix, question.answer
    if task == "number" and form < 0.5:
        return f"{_INTEGER}\nQuestion: {text}", question.answer
    if task in ("number", "read", "spell") and form < 0.7:
        return f"{text}\n{_SHORT}", question.answer
    return text, question.answer


@dataclass
class SceneBatch:
    """One training batch; B images, T packed text tokens each.

    Attributes:
        pixels: [B, 3, SIZE, SIZE] normalised.
        labels: [B, 5, N] token labels (see TokenLabels).
        present: [B, P] 1 for shape-colour pairs and characters in the image.
        ids: [B, T] token ids.
        target: [B, T] ids to predict, -100 for none.
        task: [B, T] task numbers.
        block: [B, T] numbers of the packed questions, 0 for padding.
        offset: [B, T] positions within a block.
    """

    pixels: Tensor
    labels: Tensor
    present: Tensor
    ids: Tensor
    target: Tensor
    task: Tensor
    block: Tensor
    offset: Tensor

    def to(self, device: str) -> SceneBatch:
        """Move the batch to another device."""
        return SceneBatch(**{name: value.to(device) for name, value in vars(self).items()})


class Batches:
    """Batches addressed by number: batch `step` depends on (seed, step) only, so a resumed run sees the same data."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, length: int = 144) -> None:
        self.tokenizer, self.seed, self.length = tokenizer, seed, length
        self._assistant = tokenizer.convert_tokens_to_ids("<assistant>")

    def at(self, step: int, size: int, max_objects: int = 6, plan: Sequence[str] = JOINT) -> SceneBatch:
        """Make batch number `step`: `size` images of up to `max_objects` objects, with the tasks of `plan`."""
        rng = np.random.default_rng((self.seed, step))
        layouts = [sample_layout(rng, held_out=False, objects=(2, max_objects)) for _ in range(size)]
        drawn = [render_array(layout, rng) for layout in layouts]
        pixels = torch.from_numpy(np.stack([p for p, _ in drawn])).permute(0, 3, 1, 2).float().div(255)
        labels = torch.from_numpy(np.stack([label.stack() for _, label in drawn])).flatten(2)
        present = torch.from_numpy(np.stack([_present(layout) for layout in layouts]))
        text = [self._pack(layout, plan, rng) for layout in layouts]
        columns = [torch.from_numpy(np.stack(c)) for c in zip(*text, strict=True)]
        return SceneBatch(((pixels - MEAN) / STD).contiguous(), labels, present, *columns)

    def _pack(self, layout: Layout, plan: Sequence[str], rng: Rng) -> list[np.ndarray]:
        ids, target, task, block, offset = (
            np.full(self.length, v) for v in (self.tokenizer.pad_token_id, -100, -1, 0, 0)
        )
        place, names = 0, list(TASKS)
        for number, i in enumerate(rng.permutation(len(plan)), start=1):
            name = plan[i]
            kinds = TASKS[name][1]
            question = ask(kinds[rng.integers(len(kinds))], layout, rng)
            if question is None:
                continue
            prompt, answer = wrap(name, question.instructed(rng) if name == "instruct" else question, rng)
            answer_ids = [*self._encode(answer), self.tokenizer.eos_token_id]
            block_ids = [*self._encode(prompt), self._assistant, *answer_ids]
            end = place + len(block_ids)
            if end > self.length:
                continue
            ids[place:end], block[place:end], offset[place:end] = block_ids, number, np.arange(len(block_ids))
            target[end - 1 - len(answer_ids) : end - 1] = answer_ids
            task[end - 1 - len(answer_ids) : end - 1] = names.index(name)
            place = end
        return [ids, target, task, block, offset]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _present(layout: Layout) -> np.ndarray:
    """Return [P] float32: 1 for every (shape, colour) pair, then for every character of the word."""
    out = np.zeros(len(SHAPES) * len(COLORS) + len(CHARACTERS), np.float32)
    for o in layout.objects:
        out[SHAPES.index(o.shape) * len(COLORS) + COLORS.index(o.color)] = 1
    for character in layout.word:
        out[len(SHAPES) * len(COLORS) + CHARACTERS.index(character)] = 1
    return out
