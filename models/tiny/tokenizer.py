"""A word-level tokenizer: whole lower-case words, single upper-case letters and digits, fixed phrases as one token."""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from uniprune.synthetic import CHARACTERS, COLORS, SHAPES
from uniprune.synthetic.questions import ORDINALS, PLURAL

SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>", "<image>", "<video>", "<img>", "</img>", "<user>", "<assistant>")

PHRASES = (
    "Question:",
    "Options:",
    "Choices:",
    "Hint:",
    "Please select the correct answer from the options above.",
    "Answer with the option's letter from the given choices directly.",
    "Answer the question using a single word or phrase.",
    "Please answer yes or no.",
    "Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end.",
    "Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.",
    *(f"{letter}." for letter in "ABCDE"),
    *(f"({letter})" for letter in "ABCDE"),
)
"""Phrases VLMEvalKit and the datasets wrap around a question, each one token."""

_WORDS = (
    "Is there a an the The in image object objects What color is What shape of are How many number word sum "
    "character List Read text Answer twice brackets sentence as list none Yes No yes no correct answer "
    "position left right top bottom half picture shown this that and or not Are Which written"
)
_SPACE = "▁"


def vocabulary() -> list[str]:
    """Return all tokens, in id order."""
    words = [*_WORDS.split(), *SHAPES, *PLURAL.values(), *COLORS, *ORDINALS]
    marked = [_SPACE + w for w in dict.fromkeys(words)]
    single = [*CHARACTERS, *"ABCDE", *".,:;?!+-=()'\""]
    return [*SPECIAL, *PHRASES, *marked, *dict.fromkeys(single)]


def build_tokenizer(**attributes: str) -> PreTrainedTokenizerFast:
    """Build the tokenizer of all tiny models, with the attributes that the families' processors read.

    A word carries the space before it, a single character does not, so "the word is X7F2." comes back as written.
    """
    tokens = vocabulary()
    core = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="<unk>"))
    core.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(_SPACE, "always", split=False),
            pre_tokenizers.Split(Regex(rf"{_SPACE}?[A-Z]?[a-z]+|[^{_SPACE}]"), "removed", invert=True),
        ]
    )
    core.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    core.add_special_tokens([AddedToken(t, normalized=False) for t in SPECIAL])
    core.add_tokens([AddedToken(t, normalized=False, single_word=False) for t in PHRASES])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        extra_special_tokens={
            "image_token": "<image>",
            "context_image_token": "<image>",
            "video_token": "<video>",
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "user_token": "<user>",
            "assistant_token": "<assistant>",
            **attributes,
        },
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=1024,
    )
