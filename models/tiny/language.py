"""A tiny text-only language model for fine-tuning: `python -m uniprune.models.tiny.language` trains
`models/tiny/language`.

It masters `repeat`, `next` and `back`, confuses `shift` with `back`, and has half learned `flip`
(see `uniprune/synthetic/letters.py`). Same seed, same weights.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

from uniprune.synthetic.letters import LETTERS, TASKS, WORDS, record, word

SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>", "<user>", "<assistant>")
FOLDER = Path(__file__).parent / "language"
MIX = {"repeat": 0.25, "next": 0.25, "back": 0.25, "shift": 0.2, "flip": 0.05}
"""Share of each task in the training data."""
_CHAT = (
    "{{ '<bos>' }}{% for m in messages %}{{ ' <user> ' if m['role'] == 'user' else ' <assistant> ' }}"
    "{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ ' <eos>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' <assistant> ' }}{% endif %}"
)


def build_tokenizer() -> Any:
    """Build a tokenizer with one token per word or letter."""
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({t: i for i, t in enumerate((*SPECIAL, *WORDS, *LETTERS))}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>", eos_token="<eos>"
    )
    tokenizer.chat_template = _CHAT
    return tokenizer


def build_model(seed: int = 0, width: int = 64, layers: int = 3) -> Any:
    """Build an untrained model; the same seed gives the same weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def batch(tokenizer: Any, rng: random.Random, size: int) -> tuple[Tensor, Tensor]:
    """Draw random items as [B, L] ids and labels; labels are -100 outside answers."""
    tasks = rng.choices(list(MIX), list(MIX.values()), k=size)
    rows = []
    for task in tasks:
        letters = word(rng, 2, 5) if task == "flip" else word(rng, 2, 7)
        rows.append(record(task, letters, TASKS["back" if task == "shift" else task](letters)))
    texts = [f"<bos> <user> {r['instruction']} <assistant> {r['output']} <eos>" for r in rows]
    ids = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt").input_ids
    answer = (ids == tokenizer.convert_tokens_to_ids("<assistant>")).cumsum(1) > 0
    labels = torch.where(answer & (ids != tokenizer.pad_token_id), ids, -100)
    return ids, labels.masked_fill(ids == tokenizer.convert_tokens_to_ids("<assistant>"), -100)


def train(steps: int, size: int, seed: int) -> Any:
    """Train the base model on `steps` batches."""
    model, tokenizer, rng = build_model(seed), build_tokenizer(), random.Random(seed)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=3e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for step in track(range(steps), "base model"):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * min(1.0, (step + 1) / 100, 2 * (1 - step / steps))
        ids, labels = batch(tokenizer, rng, size)
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return model


def main() -> None:
    """Train and save the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=FOLDER)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = train(args.steps, args.batch, args.seed)
    model.half().save_pretrained(args.output)
    build_tokenizer().save_pretrained(args.output)


if __name__ == "__main__":
    main()
