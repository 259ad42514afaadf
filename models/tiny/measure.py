"""Accuracy of the un-pruned tiny models on scenes never used in training: `python -m uniprune.models.tiny.measure`.

Fresh questions go through `AutoProcessor` and `generate`, and the table of the model card is written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from transformers import AutoModelForImageTextToText, AutoProcessor

from uniprune.modeling.greedy import Greedy
from uniprune.synthetic import ask, render, sample_layout

from .build import FAMILIES
from .data import wrap

HERE = Path(__file__).parent
ABILITIES = {
    "yes/no": ("yes-no", ("exists", "attribute", "count-check", "sum-check", "word-check")),
    "multiple choice": ("choice", ("color-of", "shape-of", "count", "sum", "character")),
    "reading, exact": ("read", ("read",)),
    "counting": ("number", ("count",)),
    "adding": ("number", ("sum",)),
    "following instructions": ("instruct", ("color-of", "shape-of")),
}
"""Row of the table -> (task, kinds of questions in turn)."""


def measure(folder: Path, questions: int, seed: int, batch_size: int = 32) -> dict[str, tuple[int, int]]:
    """Measure ability -> (right answers, questions), over `questions` held-out scenes per ability."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    rng = np.random.default_rng((seed, 2))
    items: list[tuple[str, Any, str, str]] = []
    for ability, (task, kinds) in ABILITIES.items():
        done = 0
        while done < questions:
            layout = sample_layout(rng, held_out=True)
            question = ask(kinds[done % len(kinds)], layout, rng)
            if question is None:
                continue
            prompt, answer = wrap(task, question.instructed(rng) if task == "instruct" else question, rng)
            items.append((ability, render(layout, rng), prompt, answer))
            done += 1
    right: dict[str, int] = defaultdict(int)
    for start in range(0, len(items), batch_size):
        part = items[start : start + batch_size]
        answers = _answer(model, processor, [(image, prompt) for _, image, prompt, _ in part])
        for (ability, _, _, gold), answer in zip(part, answers, strict=True):
            right[ability] += answer.strip() == gold
    return {ability: (right[ability], questions) for ability in ABILITIES}


def _answer(model: Any, processor: Any, questions: list[tuple[Any, str]]) -> list[str]:
    chats = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}] for _, text in questions
    ]
    texts = [processor.apply_chat_template(c, add_generation_prompt=True, tokenize=False) for c in chats]
    images = [[image] for image, _ in questions]
    inputs = processor(images=images, text=texts, padding=True, add_special_tokens=False, return_tensors="pt")
    out = Greedy.of(model, processor.tokenizer).generate(model, inputs, 16)
    answers: list[str] = processor.tokenizer.batch_decode(
        out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return answers


def weights_sha256(folder: Path) -> str:
    """Hash a model's weight file."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def table(results: dict[str, Any]) -> str:
    """Format the Markdown table of the model card: per cent right with 95 % Wilson intervals."""
    lines = ["| ability | " + " | ".join(f"tiny-{f}" for f in results) + " |", "|---|" + "---|" * len(results)]
    for ability in ABILITIES:
        cells = []
        for result in results.values():
            right, n = result["right"][ability]
            low, high = binomtest(right, n).proportion_ci(method="wilson")
            cells.append(f"{100 * right / n:.1f} ({100 * low:.1f}–{100 * high:.1f})")
        lines.append(f"| {ability} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure the models and update the model card."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--questions", type=int, default=300, help="per ability and family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=FAMILIES, help="the others keep their numbers")
    parser.add_argument("--folder", type=Path, help="measure this folder only and print, leaving the card alone")
    args = parser.parse_args()
    folders = {args.folder.name: args.folder} if args.folder else {f: HERE / f for f in args.family}
    results: dict[str, Any] = {
        name: {"sha256": weights_sha256(folder), "right": measure(folder, args.questions, args.seed)}
        for name, folder in folders.items()
    }
    if not args.folder:
        known = json.loads((HERE / "measured.json").read_text(encoding="utf-8")) | results
        results = {family: known[family] for family in FAMILIES}
    sys.stdout.write(table(results) + "\n")
    if not args.folder:
        (HERE / "measured.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        card = HERE / "README.md"
        marked = re.sub(
            r"(<!-- measured -->\n).*?(<!-- end -->)",
            rf"\g<1>{table(results)}\n\g<2>",
            card.read_text(encoding="utf-8"),
            flags=re.S,
        )
        card.write_text(marked, encoding="utf-8")


if __name__ == "__main__":
    main()
