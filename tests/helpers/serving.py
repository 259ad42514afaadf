"""The same questions to a model in vLLM and to the same model in transformers, with what both keep of each image."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.helpers.paths import ROOT
from uniprune.engine import PromptInfo, prune
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.loading import LoadedModel, Placement, load
from uniprune.pruning.base import Pruner
from uniprune.pruning.load import load_method
from uniprune.synthetic import ask, render, sample_layout

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in the process of the test
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}
ARCHITECTURES = {"llava": "UniPruneLlava", "internvl": "UniPruneInternVL", "qwen2.5-vl": "UniPruneQwen2_5_VL"}
RATIO = 1 / 9
ANSWER = 8
"""Most tokens of an answer."""
NONE: Mapping[str, Any] = MappingProxyType({})
KINDS = ("exists", "color-of", "count", "read", "shape-of", "sum")


@dataclass(frozen=True)
class Asked:
    """A question about images."""

    images: tuple[Image.Image, ...]
    text: str

    def content(self, image: Callable[[Image.Image], dict[str, Any]]) -> list[dict[str, Any]]:
        return [*map(image, self.images), {"type": "text", "text": self.text}]


@dataclass(frozen=True)
class Reply:
    """An answer: text, the prompt's tokens, and the cells that were kept of each image (None: all)."""

    text: str
    prompt: int
    kept: tuple[tuple[int, ...], ...] = ()


def questions(count: int, seed: int = 0, size: tuple[int, int] | None = None, images: int = 1) -> list[Asked]:
    """Draw questions about scenes; `size` (width, height) scales them."""
    rng, found = np.random.default_rng(seed), list[Asked]()
    while len(found) < count:
        layouts = [sample_layout(rng, held_out=True) for _ in range(images)]
        asked = ask(KINDS[len(found) % len(KINDS)], layouts[-1], rng)
        if asked is not None:
            scenes = [render(layout, rng) for layout in layouts]
            found.append(Asked(tuple(scene.resize(size) if size else scene for scene in scenes), asked.text))
    return found


def method(name: str, **fields: Any) -> Pruner:
    return load_method(name, **{"ratio": RATIO, **fields}) if name != "none" else load_method(name)


class InTransformers:
    """A tiny model in transformers, pruned by UniPrune's engine."""

    def __init__(self, family: str) -> None:
        folder = str(ROOT / "models/tiny" / family)
        self.loaded: LoadedModel = load(ModelEntry(name="tiny", source=folder), Placement("float32", "sdpa", "cpu"))

    @torch.inference_mode()
    def answer(self, pruner: Pruner, asked: Sequence[Asked]) -> list[Reply]:
        model, processor = self.loaded.model, self.loaded.processor
        replies = []
        with prune(model, pruner) as session:
            for one in asked:
                chat = [{"role": "user", "content": one.content(lambda image: {"type": "image"})}]
                text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
                inputs = processor(
                    images=[list(one.images)], text=[text], add_special_tokens=False, return_tensors="pt"
                )
                question = processor.tokenizer(one.text, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
                session.samples = (PromptInfo("row", question),)
                ids = model.generate(**inputs, max_new_tokens=ANSWER, do_sample=False)[0]
                (row,) = session.reports[-1].rows
                kept = tuple(tuple(cells.tolist()) for stage in row.stages for cells in stage.kept)
                length = inputs["input_ids"].shape[1]
                decoded = processor.tokenizer.decode(ids[length:], skip_special_tokens=True).strip()
                replies.append(Reply(decoded, row.lengths[-1], kept))
        return replies


@dataclass
class InVllm:
    """A tiny model in vLLM, pruned by the plug-in; `use` changes the method without a new start."""

    family: str
    method: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        os.environ.update(OFFLINE)
        from vllm import LLM

        self.llm = LLM(**arguments(self.family, self.method, self.options))
        self.kept: list[tuple[int, ...]] = []
        self._watch()

    def use(self, given: Mapping[str, Any]) -> None:
        """Prune by another method from now on, with the positions that the engine was started for."""
        from uniprune_vllm.settings import method_of

        def change(model: Any) -> None:
            model.config.uniprune = dict(given)
            model.use(method_of(model.config))

        self.llm.model_config.hf_config.uniprune = dict(given)
        self.llm.apply_model(change)
        self._watch()
        self.forget()

    def forget(self) -> None:
        """Empty all caches."""
        self.llm.reset_mm_cache()
        self.llm.llm_engine.reset_encoder_cache()
        assert self.llm.reset_prefix_cache()

    def together(self, asked: Sequence[Asked], **more: Any) -> list[Reply]:
        """Answer all requests in one batch, without what was kept; `more` are sampling parameters."""
        return [Reply(*one) for one in self._chat(asked, more)]

    def count(self, name: str) -> int:
        """Return one of vLLM's counters."""
        return sum(int(metric.value) for metric in self.llm.get_metrics() if metric.name == f"vllm:{name}")

    def answer(self, asked: Sequence[Asked], reads_question: bool = False) -> list[Reply]:
        """Answer one request after the other; some methods need the question a second time, by itself."""
        replies = []
        for one in asked:
            self.kept.clear()
            named = {"mm_processor_kwargs": {"uniprune_question": one.text}} if reads_question else {}
            ((text, prompt),) = self._chat([one], **named)
            replies.append(Reply(text, prompt, tuple(self.kept)))
        return replies

    def _chat(self, asked: Sequence[Asked], sampling: Mapping[str, Any] = NONE, **more: Any) -> list[tuple[str, int]]:
        from vllm import SamplingParams

        chats = [
            [{"role": "user", "content": one.content(lambda image: {"type": "image_pil", "image_pil": image})}]
            for one in asked
        ]
        parameters = SamplingParams(**{"temperature": 0, "max_tokens": ANSWER, **sampling})
        outputs = self.llm.chat(chats, parameters, use_tqdm=False, **more)
        return [(output.outputs[0].text.strip(), len(output.prompt_token_ids)) for output in outputs]

    def _watch(self) -> None:
        """Note what the model keeps of every image that it encodes."""

        def watch(model: Any) -> None:
            keep = model.chooser.keep

            def noted(*args: Any) -> Any:
                kept = keep(*args)
                self.kept.append(tuple(kept.cells.tolist()))
                return kept

            model.chooser.keep = noted

        self.llm.apply_model(watch)

    def close(self) -> None:
        """Free the engine's memory."""
        import gc

        del self.llm
        gc.collect()


def arguments(family: str, given: Mapping[str, Any] | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a small engine on a CPU; None: vLLM's own class, un-pruned."""
    overrides = {} if given is None else {"architectures": [ARCHITECTURES[family]], "uniprune": dict(given)}
    return {
        "model": str(ROOT / "models/tiny" / family),
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 512,
        "max_num_seqs": 8,
        "distributed_executor_backend": "uni",
        "disable_log_stats": False,
        "hf_overrides": overrides,
        **options,
    }
