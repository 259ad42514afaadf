"""Greedy generation with a loaded model: batches of encoded rows in, texts out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LogitsProcessor, LogitsProcessorList

from uniprune.engine.prefix import Prefix
from uniprune.engine.session import Session
from uniprune.engine.token_map import PIXELS
from uniprune.errors import UserError
from uniprune.evaluation.processing import EncodedRequest, collate
from uniprune.modeling.greedy import Greedy
from uniprune.modeling.loading import LoadedModel
from uniprune.results.fidelity import first_tokens
from uniprune.results.predictions import FirstToken


@dataclass(frozen=True)
class GeneratedText:
    """A generated row.

    Attributes:
        text: decoded text without special tokens.
        tokens: length in tokens, end of sequence included.
        first: distribution of the first token.
        cut: whether the token limit ended it, not an end-of-sequence token.
    """

    text: str
    tokens: int
    first: FirstToken
    cut: bool


class LogitsRecord(LogitsProcessor):  # type: ignore[misc]  # transformers is not typed
    """A logits processor that records what `output_logits` would keep all steps for (GBs).

    Attributes:
        first: [B, V] logits of the first step.
        finite: [B] whether all logits of all steps so far are numbers.
    """

    first: Tensor
    finite: Tensor

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the [B, V] scores unchanged."""
        finite = scores.isfinite().all(-1)
        if not hasattr(self, "first"):
            self.first, self.finite = scores, finite
        self.finite = self.finite & finite  # on the device: the caller looks once, after the last step
        return scores


class Generator:
    """Greedy decoding of a loaded model.

    No row attends to another one, but rounding differs with the number and lengths of the rows in a batch: by about
    1e-6 of a logit in float32, which changed no text so far, and by enough in bfloat16 and float16 to change the token
    where two are about equally likely, and then all that follow.

    Args:
        loaded: the model with its processor.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.model: Any = loaded.model
        self.tokenizer = loaded.processor.tokenizer
        self._decoding = Greedy.of(self.model, self.tokenizer)
        self._layers: Sequence[nn.Module] = loaded.adapter.layers

    def tensors(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Move inputs to the model's device, pixels in its precision."""
        return {name: self._placed(name, torch.from_numpy(value)) for name, value in arrays.items()}

    @torch.inference_mode()
    def generate(self, rows: Sequence[EncodedRequest], features: dict[str, Any] | None = None) -> list[GeneratedText]:
        """Generate for every row, each cut at its own longest length.

        `features` are those of the rows' images, if these were encoded before.

        Raises:
            UserError: logits are NaN or infinite, so that a row has no prediction.
        """
        inputs: dict[str, Any] = {
            name: self._placed(name, value) for name, value in collate(rows, self._decoding.pad).items()
        }
        if features is not None:
            inputs["mm_encoder_outputs"] = features
        return self._generated(rows, lambda: inputs)

    @torch.inference_mode()
    def prefix(self, session: Session, row: EncodedRequest, length: int) -> Prefix:
        """Prefill the first `length` tokens of a row, its images among them."""
        first = {name: value if name in row.visual else value[:, :length] for name, value in row.inputs.items()}
        return session.prefix(self.tensors(first))

    @torch.inference_mode()
    def continued(self, row: EncodedRequest, prefix: Prefix) -> GeneratedText:
        """Generate for a row that begins with a prefix.

        Raises:
            UserError: as `generate`.
        """
        ids = torch.from_numpy(row.inputs["input_ids"][:, prefix.attention_mask.shape[1] :]).to(self.model.device)
        [text] = self._generated([row], lambda: prefix.continued(ids))
        return text

    def _generated(self, rows: Sequence[EncodedRequest], given: Callable[[], dict[str, Any]]) -> list[GeneratedText]:
        """Generate for rows; what is `given` to the model is made anew for each of its calls."""
        inputs, record = given(), LogitsRecord()
        longest, processors = max(row.length for row in rows), LogitsProcessorList([record])
        output = self._decoding.generate(self.model, inputs, longest, logits_processor=processors)
        sequences = output[:, inputs["input_ids"].shape[1] :]
        if broken := [row.index for row, finite in zip(rows, record.finite.tolist(), strict=True) if not finite]:
            raise UserError(self._overflow(broken, given()))
        firsts = first_tokens(record.first)
        return [self._decoded(ids[: row.length], one) for ids, row, one in zip(sequences, rows, firsts, strict=True)]

    def _overflow(self, broken: Sequence[str], inputs: Mapping[str, Any]) -> str:
        """Explain logits that are no numbers: the prefill runs again to find the layer that such values leave first."""
        finite: dict[int, Tensor] = {}
        handles = [
            layer.register_forward_hook(partial(_note_finite, finite, number))
            for number, layer in enumerate(self._layers)
        ]
        try:
            self._decoding.generate(self.model, inputs, 1)
        finally:
            for handle in handles:
                handle.remove()
        layer = next((number for number, all_finite in finite.items() if not all_finite), None)
        where = "they appear in later steps only" if layer is None else f"the first ones leave decoder layer {layer}"
        precision = str(self.model.dtype).removeprefix("torch.")
        remedy = {"float16": "use --dtype bfloat16 or float32", "bfloat16": "use --dtype float32"}.get(
            precision, "the checkpoint is damaged, or the method makes such tokens"
        )
        return (
            f"the model's logits are NaN or infinite in {precision} for row {', '.join(broken[:3])}"
            f"{f' and {len(broken) - 3} more' * (len(broken) > 3)}, so it has no prediction; {where} of "
            f"{len(self._layers)}: {remedy}"
        )

    def _placed(self, name: str, value: Tensor) -> Tensor:
        # Seconds between frames stay exact: a video's positions are whole multiples of them, rounded down.
        return value.to(self.model.device, dtype=self.model.dtype if name in PIXELS else None)

    def _decoded(self, ids: Tensor, first: FirstToken) -> GeneratedText:
        """Decode up to the end of the sequence, without its end token, which a tokenizer may not call special."""
        tokens = ids.tolist()
        text = list(takewhile(lambda token: token not in self._decoding.ends, tokens))
        cut = len(text) == len(tokens)
        length = len(text) + (not cut)
        return GeneratedText(self.tokenizer.decode(text, skip_special_tokens=True).strip(), length, first, cut)


def _note_finite(finite: dict[int, Tensor], number: int, module: nn.Module, args: Any, output: Any) -> None:
    """Record, in a forward hook, whether the hidden states that leave a layer are numbers."""
    hidden = output[0] if isinstance(output, tuple) else output
    finite.setdefault(number, hidden.isfinite().all())
