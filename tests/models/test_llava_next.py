"""LLaVA-NeXT: scopes, newline tokens, and whole runs. Layouts: tests/models/test_llava_next_layouts.py."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, MistralConfig

from tests.helpers.oracles import gathered_layers, layerwise_masked, merged_inputs, physically_short
from tests.helpers.pruners import Plan, Probe, generate
from tests.helpers.tiny import IMAGE, build, inputs, row, tiny_model, visual
from tests.models.test_llava_next_layouts import ANYRES, numbered, tile_counts
from uniprune.cli.main import main
from uniprune.engine import RowReport, prune
from uniprune.engine.vision_batch import supports_sharing
from uniprune.errors import UnsupportedError
from uniprune.methods.divprune import DivPrune
from uniprune.methods.gprune import GPrune
from uniprune.methods.vtw import VTW
from uniprune.modeling.tiny import TEXT, spread
from uniprune.pruning.base import Scope
from uniprune.pruning.budget import keep_count

pytestmark = pytest.mark.end_to_end


# --- scopes -----------------------------------------------------------------------------------------------------
def tile_of(x: dict[str, Tensor]) -> Tensor:
    """[P] tile of every placeholder of all rows, -1 at row ends."""
    numbers = numbered(build("llava_next"), x["image_sizes"])
    return numbers // build("llava_next").config.image_seq_length


def kept_of(row: RowReport, x: dict[str, Tensor], model: Any = None) -> Tensor:
    """[L] True at text, row ends, and what the first stage keeps."""
    keep = x["input_ids"][0] != IMAGE
    places = (~keep).nonzero()[:, 0]
    keep[places] = numbered(model or build("llava_next"), x["image_sizes"]) < 0
    for unit, cells in zip(row.groups, row.stages[0].kept, strict=True):
        keep[places[unit.ranks[cells]]] = True
    return keep


@pytest.mark.parametrize("ratio", [0.1, 0.5])
def test_a_budget_per_tile(ratio: float) -> None:
    """Every tile keeps its share of what is left of it after unpadding; the rest of the engine follows."""
    model, x = build("llava_next"), inputs("llava_next", (3,))
    with prune(model, DivPrune(ratio=ratio, scope="tile")) as session:
        tokens, logits = generate(model, x, 8)
    report, tiles = session.reports[-1].rows[0], tile_of(x)
    keep = kept_of(report, x)
    placeholders = x["input_ids"][0] == IMAGE
    left = keep[placeholders]
    for tile in range(int(tiles.max()) + 1):
        assert int(left[tiles == tile].sum()) == keep_count(int((tiles == tile).sum()), ratio)
    assert len(report.groups) == len(tiles.unique()) - 1
    assert report.entering == [int((left & (tiles >= 0)).sum())] * 5
    want_tokens, want = physically_short(model, *merged_inputs(model, x), keep, 8)
    assert tokens[0].tolist() == want_tokens
    assert torch.equal(logits[0], want)


@pytest.mark.parametrize("scope", ["image", "prompt", "grid", "tile"])
def test_views_hold_the_tokens_of_their_unit(scope: Scope) -> None:
    """Each cell's vision quantities are those of the patch the model's packing puts there; rows x columns are true."""
    model, x = build("llava_next"), inputs("llava_next", (2, 1))
    tower = build("llava_next", "eager").base_model.vision_tower
    counts = tile_counts(model, x["image_sizes"])
    pixels = torch.cat([image[:count] for image, count in zip(x["pixel_values"], counts, strict=True)])
    with torch.no_grad():
        out = tower(pixels, output_attentions=True, output_hidden_states=True)
    weights, hidden = out.attentions[-1], out.hidden_states[-2][:, 1:]
    want = {
        "hidden": hidden,
        "importance": weights[:, :, 0, 1:].mean(1)[..., None],
        "received": weights.mean((1, 2))[:, 1:, None],
    }
    probe = Probe(
        look=lambda view: (
            view.grids,
            {
                "hidden": view.vision.hidden(-1),
                "importance": view.vision.importance(-1)[:, None],
                "received": view.vision.received(-1)[:, None],
            },
            len(view.vision.cls_tokens(-1)),
        ),
        layers=(-1,),
        plan={0: 0.5},
        scope=scope,
    )
    with prune(model, probe):
        generate(model, x, 1)
    numbers = numbered(model, x["image_sizes"])
    order = numbers[numbers >= 0]
    if scope == "tile":
        order = order.sort().values  # tile after tile, raster order in each, as no tile lies before its predecessor
    views = list(probe.seen.values())
    for name, values in want.items():
        got = torch.cat([shown[name] for _, shown, _ in views])
        torch.testing.assert_close(got, values.flatten(0, 1)[order], atol=1e-5, rtol=1e-4)
    grids = {
        "image": [[(1, 4, 4), (1, 4, 6)], [(1, 4, 4), (1, 4, 4)], [(1, 4, 4), (1, 8, 2)]],
        "prompt": [[(1, 4, 4), (1, 4, 6), (1, 4, 4), (1, 4, 4)], [(1, 4, 4), (1, 8, 2)]],
        "grid": [[(1, 4, 4)], [(1, 4, 6)], [(1, 4, 4)], [(1, 4, 4)], [(1, 4, 4)], [(1, 8, 2)]],
        "tile": [
            *[[(1, 4, 4)], [(1, 4, 3)], [(1, 4, 3)]],
            *[[(1, 4, 4)]] * 2,
            *[[(1, 4, 4)], [(1, 4, 2)], [(1, 4, 2)]],
        ],
    }
    assert [shown for shown, _, _ in views] == grids[scope]
    assert sum(number for *_, number in views) == {"grid": 1 + 2 + 1 + 1 + 1 + 2}.get(scope, 8)


def test_tiles_of_one_prompt_only() -> None:
    """In a batch with text-only rows, tiles are counted over the whole call of the tower."""
    x = inputs("llava_next", (0, 2, 1))
    with prune(build("llava_next"), Plan(plan={0: 0.5}, scope="tile")) as session:
        generate(build("llava_next"), x, 1)
    assert [len(one.groups) for one in session.reports[-1].rows] == [0, 5, 3]


@pytest.mark.parametrize("scope", ["grid", "tile"])
def test_other_families_have_a_tile_per_grid(scope: Scope) -> None:
    for family, tiles, units in (("internvl", 3, 3), ("llava", 1, 1), ("qwen2_5_vl", 1, 1)):
        with prune(build(family), DivPrune(ratio=0.3, scope=scope)) as session:
            generate(build(family), inputs(family, tiles=tiles), 1)
        report = session.reports[-1].rows[0]
        assert [len(kept) for kept in report.stages[0].kept] == [keep_count(report.initial // units, 0.3)] * units
        assert report.markers == [0] * 5


@pytest.mark.skipif(not supports_sharing(build("llava_next")), reason="this transformers takes no features in generate")
def test_pictures_encoded_before_lead_to_the_same_choice() -> None:
    """Two prompts whose images were encoded call by call, as methods share them."""
    model, images = build("llava_next"), (2, 1)
    x = inputs("llava_next", images)
    probe = Probe(look=lambda view: view.vision.received(-1), layers=(-1,), plan={0: 0.5}, scope="tile")
    visual_inputs = ("pixel_values", "image_sizes")
    with prune(model, probe) as session, torch.no_grad():
        tokens, _ = generate(model, x, 3)
        rows = [row("llava_next", x, b, images) for b in range(2)]
        calls = [session.encode({name: one[name] for name in visual_inputs}) for one in rows]
        text = {name: value for name, value in x.items() if name not in visual_inputs}
        again, _ = generate(model, text, 3, mm_encoder_outputs=session.present(calls))
    first, second = (report.rows for report in session.reports)
    assert torch.equal(tokens, again)
    assert [one.entering for one in first] == [one.entering for one in second]
    assert [one.encoded for one in first] == [((1, 4, 4),) * 5, ((1, 4, 4),) * 3]
    scores = list(probe.seen.values())
    for one, other in zip(scores[:8], scores[8:], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.skipif(not supports_sharing(build("llava_next")), reason="this transformers takes no features in forward")
def test_features_from_outside_are_refused() -> None:
    """Those that end rows are unknown: they would count as visual tokens."""
    model, x = build("llava_next"), inputs("llava_next")
    visual_inputs = {name: x.pop(name) for name in ("pixel_values", "image_sizes")}
    with torch.no_grad():
        features = model.get_image_features(**visual_inputs, return_dict=True)
    with prune(model, Plan(plan={0: 0.5})), pytest.raises(UnsupportedError, match="which tokens end rows"):
        model(**x, mm_encoder_outputs={"image": features})


# --- newline tokens ---------------------------------------------------------------------------------------------
def test_newlines_are_in_no_view_and_no_budget() -> None:
    model, x = build("llava_next"), inputs("llava_next")
    probe = Probe(look=lambda view: (view.tokens, view.text, view.prompt, view.after), plan={0: 0.05, 2: 0.025})
    with prune(model, probe) as session, torch.no_grad():
        out = model(**x, use_cache=True)
    embeds = merged_inputs(model, x)[0][0]
    words = x["input_ids"][0] != IMAGE
    tokens, text, prompt, after = probe.seen[0, 0]
    assert torch.equal(tokens, embeds[visual(x)[0]])
    assert torch.equal(text, embeds[words])
    last = int((~words).nonzero()[-1])
    assert torch.equal(prompt, embeds[last + 1 :])
    assert torch.equal(text[after], embeds[last + 1 :])
    report = session.reports[-1].rows[0]
    assert (report.initial, report.entering, report.markers) == (40, [2, 2, 1, 1, 1], [4] * 5)
    held = [out.past_key_values.get_seq_length(layer) for layer in range(5)]
    assert held == [int(words.sum()) + 4 + count for count in report.entering]
    assert report.lengths == held


def test_newlines_go_with_the_last_token() -> None:
    """Of the two images one is withdrawn altogether; then VTW withdraws both, and only text is left."""
    model, x = build("llava_next"), inputs("llava_next", (2,))

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class First(Plan):
        def select(self, view: Any, keep: int) -> Tensor:
            return torch.arange(0 if len(view.tokens) == 40 else 5)

    with prune(model, First(plan={1: 1.0})) as session:
        tokens, logits = generate(model, x, 8)
    assert session.reports[-1].rows[0].markers == [8, 4, 4, 4, 4]
    assert session.reports[-1].rows[0].entering == [72, 5, 5, 5, 5]
    places = visual(x)[0].nonzero()[:, 0]
    first = (x["input_ids"][0] == IMAGE).nonzero()[:44, 0]
    gone = torch.zeros_like(visual(x)[0])
    gone[first] = True
    gone[places[45:]] = True
    want_tokens, want, _ = layerwise_masked(model, *merged_inputs(model, x), {1: gone}, 8)
    assert tokens[0].tolist() == want_tokens
    torch.testing.assert_close(logits[0], want, atol=2e-4, rtol=1e-3)
    with prune(model, VTW(ratio=0.4)) as session, torch.no_grad():
        assert model.base_model(**x).last_hidden_state.shape[1] == int((x["input_ids"] != IMAGE).sum())
    assert (session.reports[-1].rows[0].markers[-1], session.reports[-1].rows[0].entering[-1]) == (0, 0)


# --- published rules and checkpoints ----------------------------------------------------------------------------
def test_the_released_gprune_end_to_end() -> None:
    """Its base tile and detail grid of 18 x 24 tokens, as features of a real prompt: the same placeholders are kept.

    The release floors both counts, to 127 and 95; at 22.05 % ours round to these.
    """
    case = {name.removeprefix("case9_"): torch.from_numpy(value) for name, value in np.load(ANYRES).items()}
    small = tiny_model("llava_next", (24, 24))
    model = small.model()
    model.base_model.image_newline.data = case["features"][576 + 24].clone()
    x = small.batch([small.prompt(torch.Generator().manual_seed(0), [(18, 24)])])
    assert tile_counts(model, x["image_sizes"]) == [2]
    detail = torch.zeros(24, 24, 64)
    detail[3:21] = case["features"][576:].view(18, 25, 64)[:, :-1]
    made = torch.stack((case["features"][:576], detail.flatten(0, 1)))
    handle = model.base_model.multi_modal_projector.register_forward_hook(lambda module, args, out: made)
    with prune(model, GPrune(ratio=0.2205, scope="grid")) as session, torch.no_grad():
        model(**x)
    handle.remove()
    kept = kept_of(session.reports[-1].rows[0], x, model)[x["input_ids"][0] == IMAGE]
    assert kept.nonzero()[:, 0].tolist() == case["keep"].tolist()


def mistral(window: int | None) -> Any:
    """A tiny model with a Mistral decoder, its configuration read back from JSON as from a checkpoint."""
    config = tiny_model("llava_next").config(TEXT)
    config.text_config = MistralConfig(**TEXT, sliding_window=window)
    again = AutoConfig.for_model(**config.to_dict())
    model = AutoModelForImageTextToText.from_config(again, attn_implementation="sdpa")
    spread(model, seed=1)
    return model.eval()


def test_mistral_without_a_window_and_with_one() -> None:
    """The released Mistral variant is built on v0.2, whose configuration says `sliding_window: null`."""
    model, x = mistral(None), inputs("llava_next")
    assert model.config.text_config.model_type == "mistral"
    assert model.config.text_config.sliding_window is None
    tokens, logits = generate(model, x, 4)
    with prune(model, DivPrune(ratio=1.0)):
        _, kept = generate(model, x, 4)
    assert torch.equal(logits, kept)
    with prune(model, Plan(plan={0: 0.5})) as session:
        tokens, logits = generate(model, x, 8)
    keep = kept_of(session.reports[-1].rows[0], x)
    want_tokens, want = physically_short(model, *merged_inputs(model, x), keep, 8)
    assert tokens[0].tolist() == want_tokens
    assert torch.equal(logits[0], want)
    windowed = mistral(8)
    with prune(windowed, Plan(plan={0: 0.5})) as session, torch.no_grad():
        logits = windowed(**x).logits
    keep = kept_of(session.reports[-1].rows[0], x)
    assert torch.equal(logits, gathered_layers(windowed, x, {0: keep})[0])


@pytest.mark.skipif(find_spec("vlmeval") is None, reason="the benchmark extra is not installed")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_folder_is_evaluated_on_mini_rows(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """From `save_pretrained` to a leaderboard: pictures of several sizes through the real processor, budgets met."""
    words = ["run", "--model", str(checkpoint("llava-next")), "--data", "mini-pope", "mini-ocrbench", "--limit", "3"]
    words += ["--method", "none", "vispruner", "fastv", "--ratio", "0.25", "--set", "scope=tile"]
    words += ["--data-dir", str(tmp_path / "data"), "--output", str(tmp_path / "results")]
    assert main(words) == 0
    board = list(csv.DictReader((tmp_path / "results" / "leaderboard.csv").open(encoding="utf-8")))
    tokens = {line["method"]: float(line["visual tokens"]) for line in board}
    assert tokens == {"none": 80, "vispruner": 20, "fastv": 2 / 6 * 80 + 4 / 6 * 20}
