"""Processors with real chat templates and reduced real tokenizers; images become few tokens."""

from __future__ import annotations

import gzip
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    GotOcr2ImageProcessorPil,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
    Qwen2VLVideoProcessor,
)

from tests.helpers.paths import TESTS

DATA = TESTS / "helpers" / "data"
SIDE = 56
"""Pixels of a side of an image or tile."""
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen's rule that cuts text before it is merged."""
QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
        "<|video_pad|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>")  # fmt: skip
CHECKPOINTS = ("llava-1.5-7b-hf", "llava-v1.6-mistral-7b-hf", "qwen2.5-vl-7b-instruct", "internvl3-8b-hf")


def template(name: str) -> str:
    """Read a chat template."""
    return (DATA / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


@cache
def processor(name: str) -> Any:
    """Build the processor of one of `CHECKPOINTS`."""
    return processor_with(name, template(name), llama() if name.startswith("llava") else qwen())


def processor_with(name: str, chat_template: str, tokenizer: Any) -> Any:
    """Build the processor of a checkpoint with another chat template or tokenizer."""
    square, crop = {"height": SIDE, "width": SIDE}, {"size": {"shortest_edge": SIDE}, "crop_size": SIDE}
    llava = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    match name.split("-")[:2]:
        case ["llava", "1.5"]:
            return LlavaProcessor(CLIPImageProcessorPil(**crop), tokenizer, **llava, chat_template=chat_template)
        case ["llava", _]:
            images = LlavaNextImageProcessorPil(**crop, image_grid_pinpoints=[[SIDE, 2 * SIDE], [2 * SIDE, SIDE]])
            return LlavaNextProcessor(images, tokenizer, **llava, chat_template=chat_template)
        case ["internvl3", _]:
            images = GotOcr2ImageProcessorPil(size=square)
            videos = InternVLVideoProcessor(size=square)
            return InternVLProcessor(images, tokenizer, videos, image_seq_length=4, chat_template=chat_template)
        case _:
            limits = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
            images = Qwen2VLImageProcessorPil(size=limits)
            return Qwen2_5_VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=chat_template)


def qwen() -> PreTrainedTokenizerFast:
    """Build Qwen's byte-level tokenizer: "?" and a line break after it are one token."""
    merges = _merges("qwen2.5")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = _core([*letters, *map("".join, merges)], merges)
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(one, normalized=False) for one in QWEN])
    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
             "video_token": "<video>"}  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=names
    )


def llama() -> PreTrainedTokenizerFast:
    """Build a SentencePiece tokenizer with LLaVA-1.5's rules: a space before a text, unknown characters as bytes."""
    merges = _merges("mistral")
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = {letter for pair in merges for piece in pair for letter in piece}
    tokens = [*pieces, *sorted(letters), *map("".join, merges)]
    core = _core(tokens, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens([AddedToken(one, normalized=False) for one in ("<s>", "</s>", "<unk>", "<image>", "<pad>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )


def _core(tokens: list[str], merges: list[tuple[str, str]], **rules: Any) -> Tokenizer:
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return Tokenizer(models.BPE(vocab=vocabulary, merges=merges, **rules))


def _merges(name: str) -> list[tuple[str, str]]:
    lines = gzip.decompress((DATA / "tokenizers" / f"{name}.merges.gz").read_bytes()).decode().split("\n")
    return [(left, right) for left, right in (line.split(" ") for line in lines)]
