"""ViT-only methods on all families: real models, every option, the smallest budgets, and what their fields refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.pruners import FixedAnswer, generate
from tests.helpers.tiny import FAMILIES, build, fresh_model, inputs
from tests.helpers.views import Tower, decide, make_view
from uniprune.engine import PrefillReport, prune
from uniprune.errors import UnsupportedError, UserError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.methods.cdpruner import CDPruner
from uniprune.methods.fastv import FastV
from uniprune.methods.fopru import FoPru
from uniprune.methods.gprune import GPrune
from uniprune.methods.hiprune import HiPrune
from uniprune.methods.hired import HiRED
from uniprune.methods.holov import HoloV
from uniprune.methods.mmtok import MMTok
from uniprune.methods.pooling import Pooling
from uniprune.methods.prumerge import PruMerge
from uniprune.methods.prumerge_plus import PruMergePlus
from uniprune.methods.prunesid import PruneSID
from uniprune.methods.scope import SCOPE
from uniprune.methods.trim import TRIM
from uniprune.methods.visiontrim import VisionTrim
from uniprune.methods.visionzip import VisionZip
from uniprune.methods.vispruner import VisPruner
from uniprune.methods.vscan import VScan
from uniprune.methods.zspaprune import ZSPAPrune
from uniprune.pruning.base import Compose, PreLLM, Pruner
from uniprune.pruning.budget import keep_count
from uniprune.pruning.view import View
from uniprune.registry import METHODS

RATIO = 0.222
NAMED = {
    "gprune": GPrune,
    "prumerge": PruMerge,
    "prumerge+": PruMergePlus,
    "vispruner": VisPruner,
    "visionzip": VisionZip,
    "cdpruner": CDPruner,
    "zspaprune": ZSPAPrune,
    "fopru": FoPru,
    "pooling": Pooling,
    "scope": SCOPE,
    "hiprune": HiPrune,
    "mmtok": MMTok,
    "holov": HoloV,
    "prunesid": PruneSID,
    "vscan": VScan,
    "hired": HiRED,
    "visiontrim": VisionTrim,
}
OPTIONS: list[PreLLM] = [
    PruMerge(heads="mean", order="release", space="llm"),
    PruMerge(neighbours=1, vision_layer=None),
    PruMergePlus(heads="mean", order="release", space="llm"),
    VisPruner(important=0, step=1, space="llm", vision_layer=-1),
    VisPruner(important=1),
    VisionZip(contextual=0, order="release"),
    VisionZip(contextual=1, space="llm"),
    CDPruner(invert=True),
    ZSPAPrune(k=0),
    ZSPAPrune(k=1, pooling="max"),
    ZSPAPrune(pooling="none"),
    FoPru(significance="low-variance"),
    FoPru(order="release"),
    Pooling(space="vision"),
    SCOPE(alpha=0, space="llm"),
    MMTok(alpha=0),
    HoloV(crops=3, overflow="zeros", vision_layer=-1),
    HiPrune(alpha=1, object_layer=0, vision_layer=-1),
    PruneSID(reading="llava", vision_layer=-1),
    PruneSID(reading="qwen", order="release"),
    VScan(reading="llava", local_layer=0, vision_layer=-1),
    VScan(reading="qwen"),
    HiRED(alpha=0.9, initial_layer=1, vision_layer=-1),
    VisionTrim(complement=0, vision_layer=-1),
    VisionTrim(complement=1, order="release"),
    TRIM(text="llm"),
]
CHOOSING: list[PreLLM] = [
    PruMerge(adaptive=True),
    PruMergePlus(adaptive=True),
    FoPru(strategy="row"),
    FoPru(strategy="row", order="release"),
    TRIM(text="llm", adaptive=True),
]
family = pytest.mark.parametrize("family", FAMILIES)


def run(pruner: Pruner, model: Any, x: dict[str, Tensor], steps: int = 1) -> tuple[Tensor, PrefillReport]:
    with prune(model, pruner) as session, torch.no_grad():
        tokens, logits = generate(model, x, steps)
    assert bool(logits.isfinite().all())
    return tokens, session.reports[0]


def entering(report: PrefillReport) -> list[int]:
    """Visual tokens per row after pruning, checked against what every image kept."""
    for row in report.rows:
        assert row.entering == [sum(len(kept) for kept in row.stages[0].kept)] * len(row.entering)
    return [row.entering[0] for row in report.rows]


def image_sizes(report: PrefillReport) -> list[list[int]]:
    return [[sum(t * h * w for t, h, w in grids) for grids in row.grids] for row in report.rows]


@family
@pytest.mark.parametrize("name", NAMED)
def test_registered_methods_keep_the_budget_of_every_image(family: str, name: str) -> None:
    assert METHODS.get(name) is NAMED[name]
    tokens, report = run(METHODS.get(name)(ratio=RATIO), build(family), inputs(family, (1, 2)), steps=4)
    assert tokens.shape == (2, 4)
    assert entering(report) == [sum(keep_count(n, RATIO) for n in row) for row in image_sizes(report)]


@family
@pytest.mark.parametrize("pruner", OPTIONS, ids=repr)
def test_options_keep_the_budget(family: str, pruner: PreLLM) -> None:
    _, report = run(pruner.with_ratio(RATIO), build(family), inputs(family))
    assert entering(report) == [sum(keep_count(n, RATIO) for n in row) for row in image_sizes(report)]


@family
@pytest.mark.parametrize("pruner", CHOOSING, ids=repr)
def test_methods_that_choose_their_count_say_so(family: str, pruner: PreLLM) -> None:
    assert not pruner.exact
    _, report = run(pruner.with_ratio(0.5), build(family), inputs(family, (1, 1)))
    total = [sum(row) for row in image_sizes(report)]
    assert all(1 <= kept < n for kept, n in zip(entering(report), total, strict=True))
    if isinstance(pruner, FoPru):
        (row, other) = report.rows
        for grids, kept in ((r.grids[0], r.stages[0].kept[0]) for r in (row, other)):
            row_of = torch.cat([torch.arange(h).repeat_interleave(w) + 100 * i for i, (_, h, w) in enumerate(grids)])
            whole = row_of[kept].unique()
            assert len(whole) == keep_count(len(row_of.unique()), 0.5)
            assert torch.equal(kept, torch.isin(row_of, whole).nonzero()[:, 0])


@family
@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("ratio", [0.01, 0.95])
def test_extreme_budgets(family: str, name: str, ratio: float) -> None:
    """One token, and all but one, of every image."""
    _, report = run(METHODS.get(name)(ratio=ratio), build(family), inputs(family))
    assert entering(report) == [sum(keep_count(n, ratio) for n in row) for row in image_sizes(report)]


SCOPES = [(name, scope) for name in NAMED for scope in ("image", "prompt") if (name, scope) != ("hired", "prompt")]
"""HiRED refuses to join images."""


@pytest.mark.parametrize(("name", "scope"), SCOPES)
def test_several_tiles_and_images(name: str, scope: str) -> None:
    x = inputs("internvl", (2,), tiles=3)
    _, report = run(METHODS.get(name)(ratio=RATIO, scope=scope), build("internvl"), x)
    want = 2 * keep_count(48, RATIO) if scope == "image" else keep_count(96, RATIO)
    assert entering(report) == [want]


@pytest.mark.parametrize("name", NAMED)
def test_bfloat16(name: str) -> None:
    model = fresh_model("llava").to(torch.bfloat16)
    x = inputs("llava")
    _, report = run(METHODS.get(name)(ratio=RATIO), model, x | {"pixel_values": x["pixel_values"].bfloat16()})
    assert entering(report) == [keep_count(16, RATIO)]


@pytest.mark.parametrize("name", NAMED)
def test_everything_kept_is_the_plain_model(name: str) -> None:
    x = inputs("internvl")
    plain, logits = generate(build("internvl"), x, 3)
    with prune(build("internvl"), METHODS.get(name)(ratio=1.0)):
        tokens, pruned = generate(build("internvl"), x, 3)
    assert torch.equal(tokens, plain)
    assert torch.equal(pruned, logits)


def test_a_class_token_reaches_the_language_model_in_llava_only() -> None:
    """It goes first, as released, and every token is what the projector makes of the tower's own states."""
    seen: dict[str, Tensor] = {}

    def spy(view: View, keep: int) -> Any:
        answer = decide(VisionZip(cls=True, order="release"), view, keep)
        state = view.vision.cls_tokens(None)
        seen.update(got=answer.tokens[:1], want=view.vision.project(state))
        return answer

    class Spy(FixedAnswer):
        @property
        def vision_layers(self) -> tuple[int | None, ...]:
            return (None,)

    run(Spy(answer=spy), build("llava"), inputs("llava"))
    assert torch.equal(seen["got"], seen["want"])
    _, report = run(VisionZip(cls=True, ratio=0.01), build("llava"), inputs("llava"))
    assert entering(report) == [1]
    for other in ("internvl", "qwen2_5_vl"):
        with pytest.raises(UnsupportedError, match="4 patches at a time"):
            run(VisionZip(cls=True, ratio=0.5), build(other), inputs(other))


@pytest.mark.parametrize("name", ["cdpruner", "zspaprune", "mmtok"])
def test_the_question_decides(name: str) -> None:
    """A prompt made of one visual token brings in that token; without a question the user is told."""
    tokens = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    method = METHODS.get(name)()
    for wanted in (7, 23):
        view = make_view(tokens, prompt=tokens[wanted][None], vision=Tower(features=tokens))
        assert method.select(view, 5)[0] == wanted
    x = inputs("llava")
    visual = x["input_ids"] == 299
    mute = {key: value[:, : int(visual.nonzero()[-1, 1]) + 1] for key, value in x.items() if key != "pixel_values"}
    with pytest.raises(UserError, match="needs the question"):
        run(METHODS.get(name)(ratio=0.5), build("llava"), mute | {"pixel_values": x["pixel_values"]})


def test_a_name_that_ends_in_plus_composes() -> None:
    assert MethodSpec("prumerge+", ratio=0.3).pruner() == PruMergePlus(ratio=0.3)
    both = MethodSpec("prumerge++fastv", ratio=0.25, settings={"prumerge+.heads": "mean"}).pruner()
    assert isinstance(both, Compose)
    assert both.parts == (PruMergePlus(ratio=0.5, heads="mean"), FastV(ratio=0.5))
    assert list(MethodSpec("prumerge+fastv").classes) == ["prumerge", "fastv"]


@pytest.mark.parametrize(
    ("method", "fields", "says"),
    [
        (GPrune, {"similarity": 1.5}, r"similarity 1.5 is outside \[-1, 1\]"),
        (GPrune, {"temperature": 0}, "temperature 0 must be a finite number above 0"),
        (GPrune, {"iterations": 0}, "iterations 0 must be a whole number of at least 1"),
        (PruMerge, {"neighbours": 0}, "neighbours 0 must be a whole number of at least 1"),
        (PruMerge, {"heads": "max"}, "heads 'max' is unknown; expected one of joint, mean"),
        (PruMergePlus, {"order": "random"}, "order 'random' is unknown"),
        (PruMergePlus, {"space": "text"}, "space 'text' is unknown; expected one of vision, llm"),
        (VisPruner, {"important": float("nan")}, r"important nan is outside \[0, 1\]"),
        (VisPruner, {"step": 2.5}, "step 2.5 must be a whole number of at least 1"),
        (VisPruner, {"vision_layer": "last"}, "vision_layer 'last' must be a whole number or None"),
        (VisionZip, {"contextual": -0.1}, "contextual -0.1 is outside"),
        (VisionZip, {"cls": 1}, "cls 1 must be true or false"),
        (ZSPAPrune, {"k": 1.1}, "k 1.1 is outside"),
        (ZSPAPrune, {"pooling": "sum"}, "pooling 'sum' is unknown"),
        (FoPru, {"strategy": "column"}, "strategy 'column' is unknown; expected one of rank, row"),
        (FoPru, {"significance": "none"}, "significance 'none' is unknown"),
        (SCOPE, {"alpha": -1}, "alpha -1 must be a finite number of at least 0"),
        (SCOPE, {"combine": "add"}, "combine 'add' is unknown; expected one of product, sum"),
        (HiPrune, {"alpha": 2}, r"alpha 2 is outside \[0, 1\]"),
        (HiPrune, {"object_layer": 0.0}, r"object_layer 0.0 must be a whole number or a finite number in \(0, 1\]"),
        (HoloV, {"crops": 0}, "crops 0 must be a whole number of at least 1 or None"),
        (HoloV, {"overflow": "drop"}, "overflow 'drop' is unknown; expected one of refill, zeros"),
        (MMTok, {"visual_temperature": 0}, "visual_temperature 0 must be a finite number above 0"),
        (Pooling, {"space": ""}, "space '' is unknown"),
    ],
)
def test_refused_fields(method: type[PreLLM], fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        method(**fields)
