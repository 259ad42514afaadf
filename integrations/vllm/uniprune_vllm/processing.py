"""Prompts with fewer placeholders: their number is known before an image is encoded.

What is left of an image is cached by vLLM under a key of the image and the request's `mm_processor_kwargs`. Everything
else that the choice depends on is therefore made a part of that key here: the method, and for methods that read it the
question, which a request must name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import PromptUpdateDetails

from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import keep_count
from uniprune_vllm.settings import KEY, method_of

QUESTION = "uniprune_question"
"""Name in `mm_processor_kwargs` of the bare question of a request."""
QUESTION_IDS = "uniprune_question_ids"
"""Name of its tokens among what a processor makes of an image."""


class Anything(str):
    """The question of a prompt that vLLM makes to measure memory, whose layout is not checked: no request has one."""


class PrunedProcessor:
    """Part of a processor of vLLM: as many placeholders as the method leaves of an image."""

    info: Any

    @property
    def _pruner(self) -> Pruner:
        return method_of(self.info.get_hf_config())

    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        """Lay out a prompt; see vLLM's `BaseMultiModalProcessor`.

        Raises:
            ValueError: the method needs a question, and there is none; the prompt ends with an image; its positions
                exceed those of the model.
        """
        found = super().apply(inputs, timing_ctx)  # type: ignore[misc]  # a part of a processor
        measuring = isinstance(inputs.hf_processor_mm_kwargs.get(QUESTION), Anything)
        if found["mm_placeholders"].get("image") and self._pruner.positions != "compact" and not measuring:
            self._check_layout(found["prompt_token_ids"], inputs)
        return found

    def unpruned(self, inputs: Any) -> list[int]:
        """Return the positions that each image of a prompt takes, where they are as many as its tokens; else none."""
        return []

    def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> Any:
        """Return inputs to measure memory with, and a question to them."""
        inputs = super().get_dummy_inputs(*args, **kwargs)  # type: ignore[misc]
        given = {**inputs.hf_processor_mm_kwargs, QUESTION: Anything("?")}
        return dataclasses.replace(inputs, hf_processor_mm_kwargs=given)

    def _check_layout(self, ids: Sequence[int], inputs: Any) -> None:
        """Refuse prompts whose positions, those of the un-pruned prompt, vLLM or the model does not have."""
        config = self.info.get_hf_config()
        if ids[-1] == config.image_token_id:
            raise ValueError("the prompt ends with an image; put the question, or a generation prompt, after it")
        most = config.get_text_config().max_position_embeddings
        positions = len(ids) + sum(total - kept(total, self._pruner) for total in self.unpruned(inputs))
        if len(ids) <= most < positions:  # vLLM refuses longer prompts
            raise ValueError(
                f"the un-pruned prompt has {positions} positions, which its tokens keep, but the model has {most}; "
                "send fewer images, or serve with positions=compact"
            )

    def _get_mm_hashes(self, inputs: Any) -> Any:
        given = {**inputs.hf_processor_mm_kwargs, KEY: repr(self._pruner)}
        return super()._get_mm_hashes(dataclasses.replace(inputs, hf_processor_mm_kwargs=given))  # type: ignore[misc]

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, Any]) -> Any:
        rest = {name: value for name, value in hf_kwargs.items() if name != QUESTION}
        made = super()._apply_hf_processor_main(mm_items, rest)  # type: ignore[misc]
        if self._pruner.needs_text and (count := mm_items.get_all_counts().get("image", 0)):
            ids = self._question_ids(hf_kwargs.get(QUESTION))
            made[QUESTION_IDS] = ids.expand(count, -1)
        return made

    def _question_ids(self, question: Any) -> torch.Tensor:
        """Return [1, M] tokens of the question.

        Raises:
            ValueError: there is none.
        """
        if isinstance(question, str):
            ids = self.info.get_tokenizer().encode(question, add_special_tokens=False)
            if ids:
                return torch.tensor([ids])
        raise ValueError(
            f"{type(self._pruner).__name__} reads the question, which must be a part of the image's cache key, but "
            f"the request has {QUESTION}={question!r}; send mm_processor_kwargs={{{QUESTION!r}: 'the bare question'}} "
            "(to a server started with --trust-request-mm-kwargs)"
        )

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, Any]) -> Any:
        fields = super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)  # type: ignore[misc]
        return {**fields, QUESTION_IDS: MultiModalFieldConfig.batched("image")}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any
    ) -> Sequence[Any]:
        rest = {name: value for name, value in hf_processor_mm_kwargs.items() if name != QUESTION}
        updates = super()._get_prompt_updates(mm_items, rest, out_mm_kwargs)  # type: ignore[misc]
        return [fewer(update, self._pruner) for update in updates if update.modality == "image"]


class OnlyImages:
    """Part of what vLLM knows of a processor: videos, which are not pruned, are refused."""

    def get_supported_mm_limits(self) -> dict[str, int | None]:
        """Return images, as many as a prompt has room for."""
        return {"image": None}


def kept(total: int, pruner: Pruner, num_layers: int = 1) -> int:
    """Return how many of an image's tokens a method leaves; all if it prunes nothing."""
    stages = pruner.schedule(num_layers)
    return keep_count(total, stages[0].ratio) if stages else total


def fewer(update: Any, pruner: Pruner) -> Any:
    """Return a prompt update of vLLM with fewer placeholders for an image."""
    (token,) = update.target

    def replacement(item: int) -> Any:
        whole = update.replacement(item)
        ids: list[int] = whole if isinstance(whole, list) else whole.full
        first, total = ids.index(token), ids.count(token)
        left = [*ids[:first], *[token] * kept(total, pruner), *ids[first + total :]]
        return left if isinstance(whole, list) else PromptUpdateDetails.select_token_id(left, token)

    return dataclasses.replace(update, replacement=replacement)
