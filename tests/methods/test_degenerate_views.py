"""Every method answers what it was asked on views where nothing stands out: equal tokens, no attention, few of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tests.helpers.views import decide, make_view
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.pruning.view import Grid, TextTower, TowerLayer, View
from uniprune.registry import METHODS

WIDTH, TEXT = 12, 5
SETTINGS: dict[str, tuple[str, ...]] = {
    "cdpruner": ("", "invert=true"),
    "cdpruner-blocks": ("", "split=0", "kernel=exponential", "weight=0"),
    "dart": ("", "text_pivots=0", "visual_pivots=50"),
    "dart-embeddings": ("", "text_pivots=0", "visual_pivots=0"),
    "divprune": ("",),
    "fastv": ("", "order=release"),
    "fitprune": ("",),
    "fopru": ("", "strategy=row", "significance=low-variance", "order=release"),
    "gprune": ("", "similarity=-1"),
    "hiprune": ("", "alpha=1", "object_layer=0"),
    "hired": ("", "counts=release"),
    "holov": ("", "overflow=zeros", "crops=1", "crops=5"),
    "mmtok": ("", "alpha=0"),
    "pooling": ("", "space=vision"),
    "prumerge": ("", "adaptive=true", "order=release"),
    "prumerge+": ("", "adaptive=true", "order=release"),
    "priortr": ("", "rows=internvl", "rows=qwen", "query=last", "heads=max"),
    "prunesid": ("", "reading=qwen", "cls=true", "order=release"),
    "pyramiddrop": ("",),
    "random-intra": ("",),
    "random-pre": ("", "order=release"),
    "random-tower": ("", "block=2"),
    "scope": ("", "alpha=0", "combine=sum"),
    "sparsevlm": ("", "order=release"),
    "sparsevlm-v1": ("", "scale=0.1"),
    "sparsevlm-v2": ("",),
    "transprune": ("",),
    "v2drop": ("",),
    "visionzip": ("", "contextual=0", "contextual=1", "order=release", "cls=true"),
    "vispruner": ("", "important=0", "important=1"),
    "trim": ("", "text=llm", "adaptive=true", "order=release"),
    "visiontrim": ("", "text=tower", "complement=0", "complement=1", "order=release"),
    "vscan": ("", "reading=qwen", "counts=release"),
    "zspaprune": ("", "k=0", "k=1", "pooling=none", "pooling=max"),
}
GRIDS: tuple[list[Grid], ...] = (
    *([(1, 1, 1)], [(1, 1, 2)], [(1, 5, 1)], [(1, 3, 4)]),
    *([(2, 3, 3)], [(1, 2, 8), (1, 4, 2)]),
)
ELSEWHERE = {"none", "vtw", "mustdrop", "evs", "vidcom2", "fastvid", "flashvid", "pixelprune", "tome", "resize"}
"""Keep everything, nothing, or what an earlier stage noted: tested end to end. Those for video: test_methods_video;
PixelPrune has no views of several grids; ToMe has those of a tower's block: test_tower_merging; those that choose no
tokens: test_resize."""
KINDS = ("random", "equal", "zero")


@dataclass(frozen=True)
class Texts:
    """A text tower in the space of features."""

    words: Tensor
    summary: Tensor

    def project(self, features: Tensor, normed: bool = False) -> Tensor:
        return features


@dataclass(frozen=True)
class Vision:
    """Quantities of a vision tower; `values` draws them."""

    values: Tensor
    patches: int = 1
    has_cls: bool = True

    def importance(self, layer: TowerLayer = None, joint: bool = False) -> Tensor:
        return self.values[:, 0].abs()

    def cls(self, layer: int | None = None) -> Tensor:
        return self.values[:, :2].T.abs()

    def received(self, layer: TowerLayer = None) -> Tensor:
        return self.values[:, 0 if layer is None else 1].abs()

    def from_others(self, layer: TowerLayer = None) -> Tensor:
        return self.values[:, 0].abs()

    def text_tower(self) -> TextTower:
        return Texts(self.values[:2], self.values[0])

    def exchanged(self, layer: int | None = None) -> Tensor:
        return self.values[:, :2].T.abs()

    def cls_tokens(self, layer: int | None = None) -> Tensor:
        return torch.ones(1, WIDTH)

    def keys(self, layer: int | None = None, head_mean: bool = False) -> Tensor:
        return self.values

    def features(self) -> Tensor:
        return self.values

    def project(self, features: Tensor) -> Tensor:
        return features.float()


@dataclass(frozen=True)
class Rows:
    """Attention of [heads, N + TEXT, N]: visual rows, then text rows."""

    values: Tensor

    def _rows(self, rows: str | Tensor) -> slice | Tensor:
        visual = self.values.shape[-1]
        named = {"visual": slice(0, visual), "last": slice(-1, None)}
        return visual + rows if isinstance(rows, Tensor) else named[rows]

    def __call__(self, rows: str | Tensor) -> Tensor:
        return self.values[:, self._rows(rows)]

    def blocks(self, rows: str | Tensor) -> Iterator[Tensor]:
        yield from self(rows).split(3, 1)

    def keys(self, rows: str | Tensor) -> Tensor:
        return self.values[0][self._rows(rows)]

    def rotary_prior(self, rows: Tensor) -> Tensor:
        return torch.ones(len(rows), self.values.shape[-1])


def degenerate(grids: list[Grid], kind: str) -> View:
    """A view before layer 3 whose every quantity is random, everywhere equal, or 0."""
    count = sum(t * h * w for t, h, w in grids)
    generator = torch.Generator().manual_seed(count)

    def values(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=generator)
        return {"random": drawn, "equal": torch.ones(shape), "zero": torch.zeros(shape)}[kind]

    tokens, text, rows = values(count, WIDTH), values(TEXT, WIDTH), Rows(values(4, count + TEXT, count).abs())
    return make_view(
        tokens,
        grids=grids,
        layer=3,
        prompt=text,
        text=text,
        after=torch.arange(TEXT),
        attention=rows,
        upcoming=rows,
        vision=Vision(values(count, WIDTH)),
        embedded=SimpleNamespace(tokens=tokens, text=text),
        norm=lambda x: x,
        seen=[values(count).abs(), values(count).abs()],
    )


def test_no_method_is_left_out() -> None:
    embedded = {name for name in METHODS.names() if METHODS.get(name).__module__.startswith("uniprune.methods.")}
    assert embedded == {*SETTINGS, *ELSEWHERE}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "setting"), [(name, one) for name, some in SETTINGS.items() for one in some])
def test_the_answer_is_what_was_asked_for(name: str, setting: str, kind: str) -> None:
    settings = dict([setting.split("=")]) if setting else {}
    method = MethodSpec(name, ratio=0.5, settings=settings).pruner()
    for grids in GRIDS:
        view = degenerate(grids, kind)
        count = len(view.tokens)
        for keep in sorted({1, 2, count // 2, count - 1, count} & set(range(1, count + 1))):
            decide(method, view, keep)


@pytest.mark.parametrize("name", ["fastv", "fitprune", "gprune", "pyramiddrop", "sparsevlm-v2"])
def test_equal_scores_go_to_the_lowest_index(name: str) -> None:
    view = degenerate([(1, 3, 4)], "equal")
    assert MethodSpec(name, ratio=0.5).pruner().select(view, 5).tolist() == [0, 1, 2, 3, 4]  # type: ignore[union-attr]
