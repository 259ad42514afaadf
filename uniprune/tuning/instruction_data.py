"""Instruction data: Alpaca and ShareGPT records from JSON, JSONL or a Hugging Face datasets folder, as token ids.

Rows that cannot be used are counted by reason and left out; data without a usable row is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uniprune.errors import UserError
from uniprune.utils.files import explain_encoding

Message = dict[str, str]

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
ALPACA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}### Instruction:\n{{ m['content'] }}\n\n"
    "{% elif m['role'] == 'assistant' %}### Response:\n{{ m['content'] }}{{ eos_token }}\n\n"
    "{% else %}{{ m['content'] }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}"
)
"""Chat template for tokenizers without one."""


@dataclass(frozen=True)
class Sample:
    """One conversation, tokenised.

    Attributes:
        index: number of its row in the data.
        ids: [L] token ids.
        answer: [T] ascending positions of the answer tokens, the only ones trained on, scored and pruned; none is 0.
        kind: the row's "kind" column, or "".
    """

    index: int
    ids: Tensor
    answer: Tensor
    kind: str = ""

    def shortened(self, kept: Sequence[int]) -> Sample:
        """Return the sample without its answer tokens, except those at the places `kept` within `answer`."""
        trained = torch.zeros(len(self.ids), dtype=torch.bool)
        trained[self.answer[list(kept)]] = True
        left = torch.ones(len(self.ids), dtype=torch.bool)
        left[self.answer] = trained[self.answer]
        return Sample(self.index, self.ids[left], trained[left].nonzero()[:, 0], self.kind)

    def masked(self, kept: Sequence[int]) -> Sample:
        """Return the sample with its sequence unchanged and only the answer tokens `kept` trained on."""
        return Sample(self.index, self.ids, self.answer[list(kept)], self.kind)


@dataclass
class Problems:
    """Rows that were left out or shortened: reason -> row numbers, from 0."""

    rows: dict[str, list[int]] = field(default_factory=dict)

    def add(self, reason: str, row: int) -> None:
        """Add one row."""
        self.rows.setdefault(reason, []).append(row)

    def lines(self) -> list[str]:
        """Return one line per reason: the number of rows, and the first of them."""
        return [
            f"{len(rows)} rows: {reason} (row {', '.join(map(str, rows[:5]))}{', …' * (len(rows) > 5)})"
            for reason, rows in self.rows.items()
        ]


def read_rows(path: Path, problems: Problems) -> list[Any]:
    """Read the rows of a .json or .jsonl file, or of a folder written by `datasets`; unreadable lines are None.

    Raises:
        UserError: the path does not exist or holds no such data.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise UserError(f"data {str(path)!r} does not exist; give a .json or .jsonl file or a datasets folder")
    with explain_encoding(path):
        text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".jsonl":
        # Split at "\n" only: JSON strings may hold the other characters that str.splitlines splits at.
        lines = [line for line in text.split("\n") if line.strip()]
        return [_parse(line, row, problems) for row, line in enumerate(lines)]
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise UserError(f"data {path} is not JSON ({error}); one object per line needs the suffix .jsonl") from error
    if not isinstance(rows, list):
        raise UserError(f"data {path} holds a {type(rows).__name__}; expected a list of records")
    return rows


def _parse(line: str, row: int, problems: Problems) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        problems.add("not JSON", row)
        return None


def _read_folder(path: Path) -> list[Any]:
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"data folder {path} needs the package datasets: pip install -e '.[tuning]'") from error

    try:
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            loaded = datasets.load_from_disk(str(path))
            loaded = loaded["train"] if isinstance(loaded, dict) else loaded
        else:
            loaded = datasets.load_dataset(str(path), split="train")
    except Exception as error:
        raise UserError(f"data folder {path} cannot be read by datasets: {error}; expected a 'train' split") from error
    return list(loaded)


def messages(record: Mapping[str, Any]) -> list[Message]:
    """Convert a record to chat messages.

    Raises:
        ValueError: it has neither form; the message gives the reason.
    """
    turns = record.get("conversations") or record.get("messages")
    if turns is not None:
        chat = [_turn(turn) for turn in turns]
    elif record.get("instruction") is not None and record.get("output") is not None:
        prompt = [str(record["instruction"]), str(record.get("input") or "")]
        system = [{"role": "system", "content": str(record["system"])}] if record.get("system") else []
        user = {"role": "user", "content": "\n".join(part for part in prompt if part.strip())}
        chat = [*system, user, {"role": "assistant", "content": str(record["output"])}]
    else:
        raise ValueError("missing columns: expected instruction and output, or conversations, or messages")
    answers = [m["content"] for m in chat if m["role"] == "assistant"]
    if not answers or not all(answer.strip() for answer in answers):
        raise ValueError("empty answer")
    return chat


def _turn(turn: Any) -> Message:
    role, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if role not in ROLES or text is None:
        raise ValueError(f"unknown turn: expected from/value or role/content, got role {role!r}")
    return {"role": ROLES[role], "content": str(text)}


def encode(chat: Sequence[Message], tokenizer: Any, cutoff: int) -> tuple[list[int], list[int], bool]:
    """Tokenise a conversation once; answer tokens are found by their character offsets.

    Returns:
        Token ids, positions of the answer tokens (end marks included), and whether the cut-off shortened an answer.

    Raises:
        ValueError: no answer token is before the cut-off, or the chat template rewrites earlier turns.
    """
    text = _render(tokenizer, chat)
    spans = []
    for turn, message in enumerate(chat):
        if message["role"] == "assistant":
            before, after = _render(tokenizer, chat[:turn], True), _render(tokenizer, chat[: turn + 1])
            if not (text.startswith(after) and after.startswith(before)):
                raise ValueError("chat template rewrites earlier turns")
            spans.append((len(before), len(before) + len(after[len(before) :].rstrip())))
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
    answer = [i for i, (a, b) in enumerate(offsets) if i and b > a and any(s <= a < e for s, e in spans)]
    kept = [i for i in answer if i < cutoff]
    if not kept:
        raise ValueError("prompt longer than the cut-off: no answer token is left")
    return ids[:cutoff], kept, len(kept) < len(answer)


def _render(tokenizer: Any, chat: Sequence[Message], generation: bool = False) -> str:
    text: str = tokenizer.apply_chat_template(
        list(chat), tokenize=False, add_generation_prompt=generation, chat_template=tokenizer.chat_template or ALPACA
    )
    return text


def encode_rows(rows: Iterable[Any], tokenizer: Any, cutoff: int, problems: Problems, start: int = 0) -> list[Sample]:
    """Convert usable rows to samples, numbered from `start` by row; add the others to `problems`.

    Raises:
        UserError: no row is usable.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"{type(tokenizer).__name__} does not return the positions of tokens in a text; use a fast tokenizer"
        )
    samples = []
    for row, record in enumerate(rows):
        if record is None:
            continue
        try:
            if not isinstance(record, Mapping):
                raise ValueError("not a record")
            ids, answer, cut = encode(messages(record), tokenizer, cutoff)
        except ValueError as error:
            problems.add(str(error), row)
            continue
        if cut:
            problems.add(f"answer cut at {cutoff} tokens (kept)", row)
        samples.append(Sample(start + row, torch.tensor(ids), torch.tensor(answer), str(record.get("kind", ""))))
    if not samples:
        reasons = "; ".join(problems.lines()) or "it has no rows"
        raise UserError(f"the data holds no usable row: {reasons}")
    return samples
