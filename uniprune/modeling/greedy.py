"""Greedy decoding, defined once for evaluation, `bench`, conformance and the tiny models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig

from uniprune.errors import UserError

NAMES = ("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id", "transformers_version")
"""Fields of a generation configuration that choose no token."""


@dataclass(frozen=True)
class Greedy:
    """Greedy decoding with a KV cache, whatever generation settings a checkpoint ships.

    A checkpoint's own configuration is replaced for the time of the call, not corrected field by field: penalties,
    n-gram blocks, length terms, guidance, time limits, forced or suppressed tokens, watermarks, several sequences and
    other forms of output are not inherited, and neither is a switched-off cache.

    Attributes:
        ends: ids that end a sequence; none for a fixed number of tokens.
        pad: id that fills rows which have ended.
    """

    ends: tuple[int, ...] = ()
    pad: int = 0

    @classmethod
    def of(cls, model: Any, tokenizer: Any) -> Greedy:
        """Return the decoding of a checkpoint: every id that any of its files calls the end of a sequence ends one.

        Raises:
            UserError: none of them names such an id, so that no prediction would ever end.
        """
        ends = sorted(set(_end_tokens(model, tokenizer)))
        if not ends:
            raise UserError(
                f"{type(model).__name__} has no end-of-sequence token: generation_config.json, config.json and the "
                "tokenizer name none, so no prediction would end; add the checkpoint's generation_config.json, or "
                "eos_token to its tokenizer_config.json"
            )
        pad = tokenizer.pad_token_id
        return cls(tuple(ends), ends[0] if pad is None else pad)

    def generate(self, model: Any, inputs: Mapping[str, Any], max_new_tokens: int, **options: Any) -> Any:
        """Generate at most `max_new_tokens` per row; the model's own configuration is in place again afterwards.

        Args:
            model: the Hugging Face model.
            inputs: its inputs.
            max_new_tokens: limit of new tokens.
            options: processors of logits and forms of the output.
        """
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            eos_token_id=list(self.ends) or None,
            pad_token_id=self.pad,
        )
        own, model.generation_config = model.generation_config, config
        try:
            return model.generate(**inputs, generation_config=config, **options)
        finally:
            model.generation_config = own


def ignored_settings(model: Any) -> dict[str, Any]:
    """Return the settings of a checkpoint's generation configuration that `Greedy` does not follow."""
    return {name: value for name, value in model.generation_config.to_diff_dict().items() if name not in NAMES}


def _end_tokens(model: Any, tokenizer: Any) -> Iterator[int]:
    """Yield the end tokens of the generation configuration, the configurations and the tokenizer."""
    configs = (model.generation_config, model.config, model.config.get_text_config())
    named = [getattr(config, "eos_token_id", None) for config in configs] + [tokenizer.eos_token_id]
    for ids in named:
        yield from (ids if isinstance(ids, (list, tuple)) else [] if ids is None else [ids])
