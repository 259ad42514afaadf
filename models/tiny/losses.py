"""Training-only objectives that give every visual token, and the class token, a meaning."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from uniprune.synthetic import CHARACTERS, COLORS, SHAPES
from uniprune.synthetic.draw import GLYPHS, SUM_SLOTS, WORD_SLOTS
from uniprune.synthetic.questions import PLURAL

from .build import WIDTH

CLASSES = {
    "shape": len(SHAPES) + 1,
    "color": len(COLORS) + 1,
    "glyph": len(GLYPHS) + 1,
    "slot": WORD_SLOTS + SUM_SLOTS + 1,
    "center": 2,
}
_WEIGHT = {"shape": 1.0, "color": 1.0, "glyph": 1.5, "slot": 1.0, "center": 0.5}


class TokenObjectives(nn.Module):
    """Linear probes on the projected tokens, an alignment with word embeddings, and a multi-label class token.

    * every projected token predicts shape, colour, character, place in the word and object centre; foreground and
      background weigh the same;
    * its cosine with the embeddings of the words that name its content is high, with all other content words low
      (sigmoid loss), a signal for prompt-aware pruning methods;
    * the class token of the last vision layer predicts the shape-colour pairs and characters of the image, so that its
      attention is meaningful.
    """

    word_ids: Tensor
    members: Tensor

    def __init__(self, tokenizer: PreTrainedTokenizerFast, class_width: int | None) -> None:
        super().__init__()
        self.probe = nn.Linear(WIDTH, sum(CLASSES.values()))
        pairs = len(SHAPES) * len(COLORS) + len(CHARACTERS)
        self.present = None if class_width is None else nn.Linear(class_width, pairs)
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.bias = nn.Parameter(torch.tensor(-5.0))
        words, members = _named_words()
        ids = tokenizer.convert_tokens_to_ids(words)
        self.register_buffer("word_ids", torch.tensor(ids), persistent=False)
        self.register_buffer("members", members, persistent=False)

    def forward(
        self, tokens: Tensor, class_token: Tensor | None, embeddings: Tensor, labels: Tensor, present: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute (loss, share of foreground tokens whose label is right, per probe).

        Shapes: tokens [B, N, WIDTH], class_token [B, C] or None, embeddings [V, WIDTH], labels [B, 5, N],
        present [B, P].
        """
        loss, right = tokens.new_zeros((), dtype=torch.float32), {}
        logits = self.probe(tokens).float().split(list(CLASSES.values()), -1)
        for k, name in enumerate(CLASSES):
            gold = labels[:, k].flatten()
            each = F.cross_entropy(logits[k].flatten(0, 1), gold, reduction="none")
            loss = loss + _WEIGHT[name] * _balanced(each, gold > 0)
            hit = (logits[k].argmax(-1).flatten() == gold)[gold > 0]
            right[name] = hit.float().mean()
        loss = loss + self._alignment(tokens, embeddings, labels)
        if self.present is not None and class_token is not None:
            loss = loss + 4 * F.binary_cross_entropy_with_logits(self.present(class_token).float(), present)
        return loss, right

    def _alignment(self, tokens: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
        words = F.normalize(embeddings[self.word_ids].float(), dim=-1)
        cosine = F.normalize(tokens.float(), dim=-1) @ words.T
        shown = torch.zeros_like(cosine, dtype=torch.bool)
        start = 0
        for k, classes in enumerate(list(CLASSES.values())[:4]):
            shown |= self.members[start + labels[:, k]]
            start += classes
        return 2 * _balanced(F.softplus(torch.where(shown, -1.0, 1.0) * (self.scale * cosine + self.bias)), shown)


def imitation(tokens: Tensor, taught: Tensor, labels: Tensor) -> Tensor:
    """Compute the squared distance of tokens to those of another model [B, N, D], in units of the latter's variance."""
    each = (tokens.float() - taught.float()).square().mean(-1) / taught.float().var()
    return _balanced(each, (labels[:, 0] > 0) | (labels[:, 2] > 0))


def _balanced(each: Tensor, positive: Tensor) -> Tensor:
    """Average the mean over positives and the mean over the rest."""
    inside = positive.float()

    def mean(weight: Tensor) -> Tensor:
        return (each * weight).sum() / weight.sum().clamp(min=1)

    return 0.5 * mean(inside) + 0.5 * mean(1 - inside)


def _named_words() -> tuple[list[str], Tensor]:
    """Return (vocabulary entries that name something visible, [classes, words] True where a word names a class)."""
    names: list[list[str]] = [[]] + [["▁" + s, "▁" + PLURAL[s]] for s in SHAPES]
    names += [[]] + [["▁" + c] for c in COLORS]
    names += [[]] + [[g] for g in GLYPHS]
    names += [[]] + [["▁word", "▁character"]] * WORD_SLOTS + [["▁sum"]] * SUM_SLOTS
    words = list(dict.fromkeys(w for group in names for w in group))
    members = torch.zeros(len(names), len(words), dtype=torch.bool)
    for row, group in enumerate(names):
        for word in group:
            members[row, words.index(word)] = True
    return words, members
