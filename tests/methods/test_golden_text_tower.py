"""Methods that compare patches with the text of CLIP's text tower, against the released code of their papers.

Producers (repository @ commit): VisionTrim hanxunyu/VisionTrim @ 22b686d6aeba; TRIM FreedomIntelligence/TRIM @
f5a232d51eb6. No checkpoint here carries a text tower: the views of the vectors do.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from tests.helpers.golden_cases import Case, Methods, golden, same
from tests.helpers.views import Tower, decide, make_view, noise
from tests.methods.test_golden_vit import check_merged
from uniprune.pruning.base import Selection
from uniprune.pruning.functional import count_outliers
from uniprune.pruning.view import View


@dataclass(frozen=True)
class Texts:
    """A text tower; `plain` and `normed` project features without and with the tower's last norm."""

    words: Tensor
    summary: Tensor
    plain: Tensor
    normed: Tensor

    def project(self, features: Tensor, normed: bool = False) -> Tensor:
        """Return the projected features."""
        return features @ (self.normed if normed else self.plain)


def with_texts(features: Tensor, texts: Texts, **given: Tensor) -> View:
    """Return a view whose projector doubles, and whose language model's embeddings mean nothing."""
    tower = Tower(features=features, **given)
    tower.text_tower = lambda: texts
    return make_view(2 * features, vision=tower, prompt=noise(5, features.shape[1]).to(features))


@golden("vit_visiontrim")
def test_visiontrim(case: Case, methods: Methods) -> None:
    keep = case.dominant + case.complement
    share = case.complement / keep
    method = methods("visiontrim")(text="tower", order="release", **({} if share == 0.25 else {"complement": share}))
    for features, attn, words, dominant, merged in zip(
        case.features, case.attn, case.text, case.keep, case.merged, strict=True
    ):
        patches = attn.mean(0)[1:, 1:]
        others = (patches.sum(0) - patches.diagonal()) / (len(patches) - 1)
        texts = Texts(words, noise(words.shape[1]), case.visual_projection, noise(*case.visual_projection.shape))
        view = with_texts(features, texts, from_others=others, importance=attn.mean(0)[0, 1:])
        check_merged(decide(method, view, keep), merged)
        answer = method.select(view, keep)
        same(answer.indices[: case.dominant], dominant)
        assert len(answer.indices.unique()) == keep


@golden("vit_visiontrim")
def test_visiontrim_in_the_language_model(case: Case, methods: Methods) -> None:
    """Tokens and embeddings that are the release's features and words give the same choice, and the same tokens."""
    keep = case.dominant + case.complement
    method = methods("visiontrim")(order="release", complement=case.complement / keep)
    identity = torch.eye(case.features.shape[2]).to(case.features)
    for features, attn, words in zip(case.features, case.attn, case.text, strict=True):
        patches = attn.mean(0)[1:, 1:]
        others = (patches.sum(0) - patches.diagonal()) / (len(patches) - 1)
        own = words @ case.visual_projection.T
        given = {"from_others": others, "importance": attn.mean(0)[0, 1:]}
        released = methods("visiontrim")(order="release", text="tower", complement=case.complement / keep)
        want = released.select(with_texts(features, Texts(own, own[0], identity, identity), **given), keep)
        view = make_view(features, vision=Tower(**given), prompt=own)
        answer = method.select(view, keep)
        same(answer.indices, want.indices)
        torch.testing.assert_close(answer.tokens, want.tokens / 2)


def trimmed(answer: Selection, features: Tensor, keep: Tensor, extra: Tensor) -> None:
    """Require the kept tokens, then the mean token, which was stored in half precision."""
    assert answer.tokens is not None
    torch.testing.assert_close(answer.tokens[:-1] / 2, features[keep], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(answer.tokens[-1] / 2, extra, rtol=2e-3, atol=5e-4)


@golden("vit_trim")
def test_trim(case: Case, methods: Methods) -> None:
    """With the release's count; adaptive, too, where its batch is one image, as its share is common to a batch."""
    method = methods("trim")
    count, total = case.count - 1, case.features.shape[1]
    shares = torch.stack([-(one @ text) for one, text in zip(case.projected, case.text, strict=True)]).softmax(1)
    ratio = count_outliers(shares.flatten()) / shares.numel() if case.ratio == -1 else case.ratio
    assert int(total * ratio) == count
    for features, projected, text, keep, extra in zip(
        case.features, case.projected, case.text, case.keep, case.extra, strict=True
    ):
        texts = SimpleNamespace(
            summary=text,
            words=noise(3, len(text)).to(text),
            project=lambda x, normed=False, p=projected: p if normed else -p,
        )
        view = with_texts(features, texts)  # type: ignore[arg-type]  # projects one image
        trimmed(decide(method(order="release"), view, count + 1), features, keep, extra)
        raster = method().select(view, count + 1)
        same(raster.indices[:-1], keep)
        assert int(raster.indices[-1]) == max(set(range(total)) - set(keep.tolist()))
        if case.ratio == -1 and len(case.features) == 1:
            adaptive = method(adaptive=True, order="release")
            assert not adaptive.exact
            trimmed(decide(adaptive, view, 1), features, keep, extra)
