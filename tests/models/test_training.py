"""The training recipe computes what the released model computes, and resumes exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.pruners import FixedAnswer
from uniprune.engine import prune
from uniprune.models.tiny.build import FAMILIES, PREFIX, QWEN, build_model
from uniprune.models.tiny.data import Batches
from uniprune.models.tiny.losses import imitation
from uniprune.models.tiny.measure import HERE
from uniprune.models.tiny.packing import ATTENTION, answer_states, pack
from uniprune.models.tiny.teacher import Teacher
from uniprune.models.tiny.tokenizer import build_tokenizer
from uniprune.models.tiny.train import Recipe, Trainer
from uniprune.models.tiny.vision import VISION, to_patches
from uniprune.synthetic import GRID

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def batch(tokenizer):
    return Batches(tokenizer, seed=0).at(0, 2)


def test_text_survives_the_tokenizer(tokenizer) -> None:
    for text in ("What is the word?", "the circle is red.", "X7F2", "( red)", "- blue", "red red", "A", "12"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_training_prompts_hold_no_unknown_word(tokenizer) -> None:
    batches = Batches(tokenizer, seed=1)
    assert not any((batches.at(step, 8).ids == tokenizer.unk_token_id).any() for step in range(20))


@pytest.mark.parametrize("family", FAMILIES)
def test_training_features_are_the_models_own(family: str, batch) -> None:
    model = build_model(family, 0).eval()
    with torch.no_grad():
        features = VISION[family](model, batch.pixels)
        if family in QWEN:
            grid = torch.tensor([[1, 2 * GRID, 2 * GRID]] * len(batch.pixels))
            own = model.model.get_image_features(to_patches(batch.pixels).flatten(0, 1), grid)
        else:
            own = model.model.get_image_features(
                batch.pixels,
                vision_feature_layer=model.config.vision_feature_layer,
                vision_feature_select_strategy="default",
            )
    torch.testing.assert_close(features.tokens, torch.stack(list(own.pooler_output)), atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(features.deepstack, own.get("deepstack_features", ()), strict=True):
        torch.testing.assert_close(mine, torch.stack(list(theirs)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("ratio", [1.0, 0.5])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_answer_is_the_answer_asked_alone(family: str, ratio: float, tokenizer, batch) -> None:
    """Logits of one packed block equal those of the plain, single-question prompt, with the same tokens pruned."""
    model = build_model(family, 0).eval()
    pixels = batch.pixels[:1]
    noise = torch.rand(2, GRID * GRID, generator=torch.Generator().manual_seed(0))
    keep = noise.argsort(1)[:, : int(ratio * GRID * GRID)].sort(1).values
    pruner = FixedAnswer(answer=lambda view, count: keep[0], ratio=ratio)
    with torch.no_grad():
        features = VISION[family](model, batch.pixels)
        model.get_decoder().set_attn_implementation(ATTENTION)
        packed = pack(family, model, tokenizer, features, batch, None if ratio == 1 else keep)
        packed.mask = packed.mask.float()
        states = answer_states(model, packed, batch.ids.shape[1])
        model.get_decoder().set_attn_implementation("sdpa")
        number = int(batch.block[0].max())
        mine = batch.block[0] == number
        before, after = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in PREFIX[family])
        image = [tokenizer.convert_tokens_to_ids("<image>")] * GRID * GRID
        ids = torch.tensor([[*before, *image, *after, *batch.ids[0][mine].tolist()]])
        inputs = {"input_ids": ids, "pixel_values": pixels}
        if family in QWEN:
            inputs |= {
                "pixel_values": to_patches(pixels)[0],
                "image_grid_thw": torch.tensor([[1, 2 * GRID, 2 * GRID]]),
                "mm_token_type_ids": (ids == image[0]).int(),
            }
        with prune(model, pruner):
            alone = model(**inputs).logits[0, -int(mine.sum()) :]
        together = model.get_output_embeddings()(states[0][mine])
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(("family", "folder"), [("internvl", "llava"), ("qwen3-vl", "internvl")])
def test_another_models_language_model_is_a_start(family: str, folder: str, batch) -> None:
    model, teacher = build_model(family, 0), Teacher(HERE / folder, "cpu")
    teacher.start(model)
    mine = dict(model.get_decoder().named_parameters())
    for name, parameter in teacher.model.get_decoder().named_parameters():
        if name in mine:
            assert torch.equal(mine.pop(name), parameter)
        else:
            assert name.endswith("bias")
    assert {float(p.detach().min()) for p in mine.values()} == {float("_norm." in name) for name in mine}
    features = VISION[family](model, batch.pixels)
    assert not any(part.any() for part in features.deepstack)


def test_a_language_model_with_more_than_biases_of_its_own_is_refused(checkpoint) -> None:
    with pytest.raises(SystemExit, match=r"qwen3-vl holds another language model.*q_norm"):
        Teacher(checkpoint("qwen3-vl"), "cpu").start(build_model("llava", 0))


def test_visual_tokens_can_be_imitated(batch) -> None:
    model, teacher = build_model("qwen3-vl", 0), Teacher(HERE / "internvl", "cpu")
    teacher.scale(model, "qwen3-vl", batch.pixels)
    own, taught = VISION["qwen3-vl"](model, batch.pixels).tokens, teacher.tokens(batch.pixels)
    torch.testing.assert_close(own.std(), taught.std())
    assert imitation(taught, taught, batch.labels) == 0
    assert imitation(own, taught, batch.labels) > 1


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    recipe = Recipe(
        vision_steps=2, vision_batch=2, joint_steps=2, joint_batch=2, polish_steps=1, compose_steps=1, refine_steps=1
    )
    whole = Trainer("llava", recipe, _folder(tmp_path / "whole"), "cpu", None)
    whole.run(save_every=100)

    class Stop(Exception):
        pass

    for stop in (1, 2, 2):  # in the vision, joint and polish phases
        part = Trainer("llava", recipe, _folder(tmp_path / "parts"), "cpu", None)
        calls = iter(range(10))
        train_step = part._train_step

        def interrupted(step: int, total: int, calls=calls, train_step=train_step, stop=stop) -> None:
            if next(calls) == stop:
                raise Stop("here")
            train_step(step, total)

        part._train_step = interrupted  # type: ignore[method-assign]
        with pytest.raises(Stop, match="here"):
            part.run(save_every=1)
    last = Trainer("llava", recipe, _folder(tmp_path / "parts"), "cpu", None)
    last.run(save_every=1)
    for a, b in zip(whole.model.parameters(), last.model.parameters(), strict=True):
        assert torch.equal(a, b)


def _folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path
