"""Scores of samples under a model: one gradient-free forward over packed rows, chunked over the vocabulary.

Rows are as long as the longest sample, so attention is no wider than necessary. Only hidden states that predict answer
tokens go through the output head, one block of the vocabulary at a time: no [B, L, V] logits exist, in any precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from uniprune.engine.attention import AttentionCapture
from uniprune.engine.layer_kinds import check_recomputable
from uniprune.errors import UnsupportedError
from uniprune.tuning.instruction_data import Sample
from uniprune.tuning.packing import base_model, pack, packed_inputs, predicting_positions
from uniprune.tuning.strategy import TokenStrategy

VOCABULARY, POSITIONS = 8192, 1024
"""Block sizes: at most POSITIONS x VOCABULARY float32 logits exist at a time."""


@dataclass(frozen=True)
class Scores:
    """Scores of one sample's T answer tokens, on the CPU.

    Attributes:
        nll: [T] negative log-likelihood, float32.
        entropy: [T] entropy of the predicted distribution, in nats.
        right: [T] whether the token is the likeliest; all True means that greedy decoding gives exactly this answer.
    """

    nll: Tensor
    entropy: Tensor
    right: Tensor


@dataclass(frozen=True)
class Scorer:
    """Scoring with a causal language model.

    Attributes:
        model: a decoder of transformers, bare or inside PEFT.
        row_tokens: tokens in one forward; a longer sample gets a forward of its own.
        dtype: precision of the forward (autocast), None for the model's own. Statistics are always float32.
    """

    model: Any
    row_tokens: int = 8192
    dtype: torch.dtype | None = None

    def score(self, samples: Sequence[Sample]) -> list[Scores]:
        """Return the scores of samples, in their order."""
        scores: dict[int, Scores] = {}
        for rows in self._forwards([len(sample.ids) for sample in samples]):
            packed = self._score([[samples[i] for i in row] for row in rows])
            scores.update(zip((i for row in rows for i in row), packed, strict=True))
        return [scores[i] for i in range(len(samples))]

    def tokens(self, sample: Sample, strategy: TokenStrategy) -> dict[str, Tensor]:
        """Return the attention and hidden states of one sample that a token strategy declares, by name."""
        measured: dict[str, Tensor] = {}
        with self._inference(), self._last_attention() as inputs:
            states = self._decoder([[sample]])
            if strategy.states:
                measured["states"] = states[sample.answer.to(states.device)].float().cpu()
            if strategy.attention:
                measured["attention"] = attention_to_answer(inputs, sample, strategy.attention).cpu()
        return measured

    def verify(self, samples: Sequence[Sample]) -> None:
        """Compare packed, chunked scores of a few samples with the model's own logits of each sample alone.

        Raises:
            UnsupportedError: they differ, because the model scales or caps its logits, or mixes packed samples.
        """
        packed = self._score([samples])
        with self._inference():
            for sample, scores in zip(samples, packed, strict=True):
                logits = self.model(input_ids=sample.ids[None].to(self.model.device), use_cache=False).logits[0]
                logp = logits.float().log_softmax(-1).cpu()[sample.answer - 1]
                expected = -logp.gather(-1, sample.ids[sample.answer, None])[:, 0]
                off = float((scores.nll - expected).abs().max() / expected.abs().max().clamp_min(1.0))
                limit = 1e-3 if logits.dtype == torch.float32 and self.dtype is None else 0.1
                if not off <= limit:
                    raise UnsupportedError(
                        f"{type(self.model).__name__} cannot be scored in packed rows: its own log-likelihoods differ "
                        f"by {off:.2g} (relative; expected at most {limit:g}). It scales or caps its logits, or lets "
                        "packed samples attend to each other; use another model or attention kernel"
                    )

    def _score(self, rows: Sequence[Sequence[Sample]]) -> list[Scores]:
        """Return the scores of packed rows, in order, from one forward."""
        samples = [sample for row in rows for sample in row]
        with self._inference():
            states = self._decoder(rows)
            targets = torch.cat([sample.ids[sample.answer] for sample in samples]).to(states.device)
            nll, entropy, right = head_statistics(states[predicting_positions(rows)], self._head(), targets)
        sizes = [len(sample.answer) for sample in samples]
        columns = (nll.cpu().split(sizes), entropy.cpu().split(sizes), right.cpu().split(sizes))
        return [Scores(*values) for values in zip(*columns, strict=True)]

    def _forwards(self, lengths: Sequence[int]) -> Iterator[list[list[int]]]:
        """Yield the rows of each forward: sample numbers, packed into rows as wide as the longest sample."""
        width = max(lengths, default=1)
        rows = pack(lengths, width)
        per_forward = max(1, self.row_tokens // width)
        return (rows[i : i + per_forward] for i in range(0, len(rows), per_forward))

    def _decoder(self, rows: Sequence[Sequence[Sample]]) -> Tensor:
        """Return the [R * W, D] last hidden states of packed rows."""
        output = base_model(self.model).get_decoder()(**packed_inputs(rows, self.model.device), use_cache=False)
        states: Tensor = output.last_hidden_state.flatten(0, 1)
        return states

    def _head(self) -> Any:
        head = base_model(self.model).get_output_embeddings()
        if hasattr(head, "base_layer") or hasattr(head, "modules_to_save"):
            raise UnsupportedError(
                "the output layer has a LoRA adapter, which block-wise scoring would miss; leave it out"
            )
        return head

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """Disable gradients and dropout and set the precision; restore the training mode afterwards."""
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
        """Capture the arguments of the last decoder layer's attention, by name."""
        inputs: dict[str, Any] = {}
        modules = [m for m in base_model(self.model).get_decoder().modules() if hasattr(m, "q_proj")]
        if not modules:
            raise UnsupportedError(
                f"{type(self.model).__name__} has no decoder attention with a q_proj; token strategies that rank by "
                "attention need one (Llama, Qwen and Mistral have it)"
            )
        check_recomputable(modules[-1])

        def capture(attention: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            inputs.update(kwargs, module=attention)
            if args:
                inputs["hidden_states"] = args[0]

        handle = modules[-1].register_forward_pre_hook(capture, with_kwargs=True)
        try:
            yield inputs
        finally:
            handle.remove()


def head_statistics(states: Tensor, head: Any, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return negative log-likelihood, entropy and "is the likeliest" of T positions, without their [T, V] logits.

    One pass over blocks of the vocabulary keeps, per position, the running maximum m, the sum of exp(z - m) and the sum
    of exp(z - m) z; entropy is log-sum-exp minus the expected logit.

    Args:
        states: [T, D] last hidden states.
        head: the output layer, with weight [V, D] and an optional bias.
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
        inside = (targets >= start) & (targets < start + logits.shape[1])
        target = torch.where(
            inside, logits.gather(-1, (targets - start).clamp(0, logits.shape[1] - 1)[:, None])[:, 0], target
        )
    normaliser = top + total.log()
    return normaliser - target, normaliser - weighted / total, target >= top


def attention_to_answer(inputs: Mapping[str, Any], sample: Sample, rows: str) -> Tensor:
    """Return the [1 or T, T] attention to the answer tokens, heads averaged, of the last position or of the answer.

    Args:
        inputs: arguments of an attention module, and the module itself as "module".
        sample: the only sample of the forward.
        rows: query positions: "last" or "answer".
    """
    cos, sin = inputs["position_embeddings"]
    hidden = inputs["hidden_states"]
    capture = AttentionCapture(inputs["module"], 0, hidden, cos, sin, None, inputs.get("attention_mask"))
    length, device = len(sample.ids), hidden.device
    answer = sample.answer.to(device)
    queries = answer if rows == "answer" else answer[-1:]
    valid = torch.ones(length, dtype=torch.bool, device=device)
    return torch.cat([block.mean(0) for block in capture.probabilities(0, queries, answer, valid)])
