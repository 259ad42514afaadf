"""What the model thinks of samples: a gradient-free forward over packed samples, chunked over the vocabulary.

Samples of different lengths lie end to end in rows as long as the longest, told apart by their position ids, so that
next to nothing is padding and attention is no wider than it must be. Of the
hidden states only those that predict answer tokens meet the output head, a block of the vocabulary at a time: no
[B, L, V] logits exist, in any precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from uniprune.engine.attention import AttentionCapture
from uniprune.errors import UnsupportedError
from uniprune.tuning.data import Sample
from uniprune.tuning.strategy import TokenStrategy

VOCABULARY, POSITIONS = 8192, 1024
"""Entries of the vocabulary and answer positions per block: bounds memory at POSITIONS x VOCABULARY float32 values."""


@dataclass(frozen=True)
class Scores:
    """One sample's answer tokens, T of them, on the CPU.

    Attributes:
        nll: [T] negative log-likelihood, float32. entropy: [T] of the predicted distribution, nats.
        right: [T] whether the token is the likeliest one; all True means that greedy decoding gives this very answer.
    """

    nll: Tensor
    entropy: Tensor
    right: Tensor


@dataclass(frozen=True)
class Scorer:
    """Scores samples with a causal language model.

    Args:
        model: a decoder of transformers, bare or inside PEFT.
        row_tokens: tokens in one forward; a longer sample has one of its own.
        dtype: precision of the forward (autocast), None for the model's own. Statistics are float32 always.
    """

    model: Any
    row_tokens: int = 8192
    dtype: torch.dtype | None = None

    def score(self, samples: Sequence[Sample]) -> list[Scores]:
        """Scores in the order given."""
        found: dict[int, Scores] = {}
        for rows in self._forwards([len(sample.ids) for sample in samples]):
            scores = self._score([[samples[i] for i in row] for row in rows])
            found.update(zip((i for row in rows for i in row), scores, strict=True))
        return [found[i] for i in range(len(samples))]

    def tokens(self, sample: Sample, strategy: TokenStrategy) -> dict[str, Tensor]:
        """Attention and states of one sample, as far as a token strategy declares them."""
        measured: dict[str, Tensor] = {}
        with self._quiet(), self._last_attention() as seen:
            states = self._decoder([[sample]])
            if strategy.states:
                measured["states"] = states[sample.answer.to(states.device)].float().cpu()
            if strategy.attention:
                measured["attention"] = attention_to_answer(seen, sample, strategy.attention).cpu()
        return measured

    def verify(self, samples: Sequence[Sample]) -> None:
        """Compare packed, chunked scores of a few samples with the model's own logits, one sample at a time.

        Raises:
            UnsupportedError: they differ, because the model scales or caps its logits, or mixes packed samples.
        """
        ours = self._score([samples])
        with self._quiet():
            for sample, mine in zip(samples, ours, strict=True):
                logits = self.model(input_ids=sample.ids[None].to(self.model.device), use_cache=False).logits[0]
                logp = logits.float().log_softmax(-1).cpu()[sample.answer - 1]
                theirs = -logp.gather(-1, sample.ids[sample.answer, None])[:, 0]
                off = float((mine.nll - theirs).abs().max() / theirs.abs().max().clamp_min(1.0))
                limit = 1e-3 if logits.dtype == torch.float32 and self.dtype is None else 0.1
                if not off <= limit:
                    raise UnsupportedError(
                        f"{type(self.model).__name__} cannot be scored in packed rows: its own log-likelihoods differ "
                        f"by {off:.2g} (relative; expected at most {limit:g}). It scales or caps its logits, or lets "
                        "packed samples see each other; use another model or attention kernel"
                    )

    def _score(self, rows: Sequence[Sequence[Sample]]) -> list[Scores]:
        """Scores of packed rows, in order, from one forward."""
        samples = [sample for row in rows for sample in row]
        with self._quiet():
            states = self._decoder(rows)
            targets = torch.cat([sample.ids[sample.answer] for sample in samples]).to(states.device)
            nll, entropy, right = head_statistics(states[predicting(rows)], self._head(), targets)
        sizes = [len(sample.answer) for sample in samples]
        columns = (nll.cpu().split(sizes), entropy.cpu().split(sizes), right.cpu().split(sizes))
        return [Scores(*one) for one in zip(*columns, strict=True)]

    def _forwards(self, lengths: Sequence[int]) -> Iterator[list[list[int]]]:
        """Rows of sample numbers, as wide as the longest sample, in groups that make one forward."""
        width = max(lengths, default=1)
        rows = pack(lengths, width)
        at_once = max(1, self.row_tokens // width)
        return (rows[i : i + at_once] for i in range(0, len(rows), at_once))

    def _decoder(self, rows: Sequence[Sequence[Sample]]) -> Tensor:
        """[R * W, D] last hidden states of packed rows."""
        output = _base(self.model).get_decoder()(**packed_inputs(rows, self.model.device), use_cache=False)
        states: Tensor = output.last_hidden_state.flatten(0, 1)
        return states

    def _head(self) -> Any:
        head = _base(self.model).get_output_embeddings()
        if hasattr(head, "base_layer") or hasattr(head, "modules_to_save"):
            raise UnsupportedError("the output layer has an adapter, which scoring by blocks would miss; leave it out")
        return head

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """No gradients, no dropout, the precision asked for; the training mode comes back afterwards."""
        training = self.model.training
        self.model.eval()
        kind = self.model.device.type
        try:
            with torch.inference_mode(), torch.autocast(kind, self.dtype, enabled=self.dtype is not None):
                yield
        finally:
            self.model.train(training)

    @contextmanager
    def _last_attention(self) -> Iterator[dict[str, Any]]:
        """What enters the last decoder layer's attention, by argument name."""
        seen: dict[str, Any] = {}
        module = [m for m in _base(self.model).get_decoder().modules() if hasattr(m, "q_proj")]
        if not module:
            raise UnsupportedError(
                f"{type(self.model).__name__} has no decoder attention with a q_proj; token strategies that rank by "
                "attention need one (Llama, Qwen and Mistral have it)"
            )

        def look(attention: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            seen.update(kwargs, module=attention)
            if args:
                seen["hidden_states"] = args[0]

        handle = module[-1].register_forward_pre_hook(look, with_kwargs=True)
        try:
            yield seen
        finally:
            handle.remove()


def head_statistics(states: Tensor, head: Any, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Negative log-likelihood, entropy and "is the likeliest" of T positions, without their [T, V] logits.

    One pass over blocks of the vocabulary keeps, per position, the running maximum m, the sum of exp(z - m) and the sum
    of exp(z - m) z; entropy is log-sum-exp minus the expected logit.

    Args:
        states: [T, D] last hidden states.
        head: the output layer, weight [V, D] and perhaps bias.
        targets: [T] token ids.
    """
    parts = [
        _block_statistics(s, head, t) for s, t in zip(states.split(POSITIONS), targets.split(POSITIONS), strict=True)
    ]
    nll, entropy, right = (torch.cat(column) for column in zip(*parts, strict=True))
    return nll, entropy, right


def _block_statistics(states: Tensor, head: Any, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    size, width = len(states), head.weight.shape[0]
    top = states.new_full((size,), -torch.inf, dtype=torch.float32)
    total, weighted = torch.zeros_like(top), torch.zeros_like(top)
    target = torch.zeros_like(top)
    for start in range(0, width, VOCABULARY):
        rows = slice(start, start + VOCABULARY)
        bias = None if getattr(head, "bias", None) is None else head.bias[rows]
        logits = nn.functional.linear(states, head.weight[rows].to(states.dtype), bias).float()
        higher = torch.maximum(top, logits.amax(-1))
        shrink = (top - higher).exp()
        shares = (logits - higher[:, None]).exp()
        total = total * shrink + shares.sum(-1)
        weighted = weighted * shrink + (shares * logits).sum(-1)
        top = higher
        here = (targets >= start) & (targets < start + logits.shape[1])
        target = torch.where(
            here, logits.gather(-1, (targets - start).clamp(0, logits.shape[1] - 1)[:, None])[:, 0], target
        )
    normaliser = top + total.log()
    return normaliser - target, normaliser - weighted / total, target >= top


def attention_to_answer(seen: Mapping[str, Any], sample: Sample, rows: str) -> Tensor:
    """[1 or T, T] attention to the answer tokens, heads averaged, from the last position or the answer's own."""
    cos, sin = seen["position_embeddings"]
    hidden = seen["hidden_states"]
    tap = AttentionCapture(seen["module"], 0, hidden, cos, sin, None)
    length, device = len(sample.ids), hidden.device
    answer = sample.answer.to(device)
    queries = answer if rows == "answer" else answer[-1:]
    valid = torch.ones(length, dtype=torch.bool, device=device)
    return torch.cat([block.mean(0) for block in tap.probabilities(0, queries, answer, valid)])


def pack(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Rows of sample numbers with at most `row_tokens` tokens each: longest first into the first row with room."""
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = next((r for r, left in enumerate(room) if left >= lengths[i]), None)
        if fits is None:
            rows.append([])
            room.append(row_tokens)
            fits = len(rows) - 1
        rows[fits].append(i)
        room[fits] -= lengths[i]
    return rows


def packed_inputs(rows: Sequence[Sequence[Sample]], device: torch.device) -> dict[str, Tensor]:
    """[R, W] input ids and position ids of rows of samples laid end to end.

    What a row lacks of the longest one is filled with a sequence of its own, which no sample sees.
    """
    width = max(sum(len(sample.ids) for sample in row) for row in rows)
    ids, positions = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(2))
    for r, row in enumerate(rows):
        used = sum(len(sample.ids) for sample in row)
        ids[r, :used] = torch.cat([sample.ids for sample in row])
        filler = [torch.arange(width - used)]
        positions[r] = torch.cat([torch.arange(len(sample.ids)) for sample in row] + filler)
    return {"input_ids": ids.to(device), "position_ids": positions.to(device)}


def predicting(rows: Sequence[Sequence[Sample]]) -> Tensor:
    """Places in the flattened rows whose hidden states predict answer tokens, in order."""
    width = max(sum(len(sample.ids) for sample in row) for row in rows)
    found = []
    for r, row in enumerate(rows):
        start = r * width
        for sample in row:
            found.append(start + sample.answer - 1)
            start += len(sample.ids)
    return torch.cat(found)


def _base(model: Any) -> Any:
    """The transformers model inside PEFT, or itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
