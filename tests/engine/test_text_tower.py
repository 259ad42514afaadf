"""TRIM and VisionTrim with the text tower of a CLIP checkpoint on disk, whose vision tower a tiny LLaVA has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, PreTrainedTokenizerFast

from tests.engine.test_tower_stage import entering
from tests.helpers.tiny import build, fresh_model, inputs
from uniprune.engine import PromptInfo, QuestionFinder, prune
from uniprune.errors import UnsupportedError, UserError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.methods.random_tower import RandomTower
from uniprune.methods.trim import TRIM
from uniprune.methods.visiontrim import VisionTrim
from uniprune.modeling.families import find_adapter
from uniprune.pruning.base import Pruner

WORDS, LONGEST = ("<pad>", "</s>", "<unk>", "is", "there", "a", "red", "circle", "?"), 8


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of words, which ends every text by its end token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> CLIPModel:
    """A CLIP model with the vision tower of the tiny LLaVA."""
    vision = find_adapter(build("llava")).vision
    text = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LONGEST,
        eos_token_id=1,
        bos_token_id=0,
    )
    torch.manual_seed(0)
    made = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.config.to_dict(), projection_dim=16))
    made.vision_model.load_state_dict(vision.state_dict())
    for part in (made.text_projection, made.visual_projection):
        torch.nn.init.normal_(part.weight)
    return made.eval()


@pytest.fixture(scope="module")
def folder(clip: CLIPModel, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder in which it is saved, with its tokenizer."""
    path = tmp_path_factory.mktemp("clip")
    clip.save_pretrained(path)
    tokenizer().save_pretrained(path)
    return str(path)


def kept(pruner: Pruner, question: str | None, x: Any = None) -> list[int]:
    """Return the tokens that stay of one image, asked a question."""
    with prune(build("llava"), pruner) as session, torch.no_grad():
        session.samples = (PromptInfo("a", text=question),)
        build("llava")(**(x or inputs("llava")))
    found: list[int] = session.reports[-1].rows[0].stages[-1].kept[0].tolist()
    return found


@torch.no_grad()
def embedded(clip: CLIPModel, question: str) -> tuple[Tensor, Tensor]:
    """Return the projected embedding [E] and states [M, E] of a question, as `CLIPModel` computes them."""
    given = tokenizer()(question, return_tensors="pt", truncation=True, max_length=LONGEST)
    out = clip.text_model(input_ids=given["input_ids"], attention_mask=given["attention_mask"])
    summary = clip.text_projection(out.pooler_output[0])
    together = clip(**given, pixel_values=inputs("llava")["pixel_values"]).text_embeds[0]
    torch.testing.assert_close(summary / summary.norm(), together)
    return summary, clip.text_projection(out.last_hidden_state[0])


@torch.no_grad()
def features() -> Tensor:
    """Return [16, C] what the projector of the tiny LLaVA gets."""
    model, x = build("llava"), inputs("llava")
    states, _ = entering(model, x)
    adapter = find_adapter(model)
    for layer in adapter.vision_blocks()[: adapter.last_block() + 1]:
        states = layer(states, None)
    return states[0, 1:]


def test_trim_ranks_by_the_text_tower(clip: CLIPModel, folder: str) -> None:
    trim = TRIM(ratio=0.5, text_checkpoint=folder)
    picks = {}
    for question in ("is there a circle ?", "red red red"):
        summary, _ = embedded(clip, question)
        with torch.no_grad():
            dots = clip.visual_projection(clip.vision_model.post_layernorm(features())) @ summary
        best = dots.argsort()[:7].tolist()
        picks[question] = kept(trim, question)
        assert picks[question] == sorted([*best, max({*range(16)} - {*best})])
    assert picks["red red red"] == kept(trim, "<image 1> red red red")
    long = " ".join(["circle"] * 20)
    assert kept(trim, long) == kept(trim, " ".join(["circle"] * 7))


def test_visiontrims_complement_follows_the_words(clip: CLIPModel, folder: str) -> None:
    """Half of the tokens are dominant, as without a complement; the other half is most like the words of the rest."""
    visiontrim = VisionTrim(ratio=0.5, text="tower", text_checkpoint=folder, complement=0.5)
    dominant = kept(replace(visiontrim, ratio=0.25, complement=0.0), "?")
    for question in ("is there a red circle ?", "circle"):
        _, words = embedded(clip, question)
        with torch.no_grad():
            shown = torch.nn.functional.normalize(clip.visual_projection(features()), dim=-1)
        alike = (shown @ torch.nn.functional.normalize(words, dim=-1).T).mean(1)
        alike[dominant] = -2
        assert kept(visiontrim, question) == sorted([*dominant, *alike.argsort()[-4:].tolist()])


def test_trim_takes_gaps_of_a_tower_stage(folder: str) -> None:
    found = kept(RandomTower(ratio=0.5) >> TRIM(ratio=0.5, text_checkpoint=folder), "is there a circle ?")
    assert len(found) == 4
    assert {*found} < {*kept(RandomTower(ratio=0.5), None)}


def test_a_session_reads_the_question_as_text(folder: str) -> None:
    with pytest.raises(UserError, match=r"sample 'a' has none; set PromptInfo.text"):
        kept(TRIM(ratio=0.5, text_checkpoint=folder), None)


def test_the_finder_of_questions_passes_the_text_on(checkpoint: Callable[[str], Path]) -> None:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint("llava"))
    ids = processor.tokenizer("is there a circle ?", return_tensors="pt")["input_ids"][0]
    assert QuestionFinder(processor).info("a", ids, "is there a circle ?").text == "is there a circle ?"


def test_another_vision_tower_is_refused_by_name(folder: str, clip: CLIPModel, tmp_path: Path) -> None:
    other = fresh_model("llava")
    with torch.no_grad():
        find_adapter(other).vision_blocks()[1].mlp.fc1.bias[3] += 1e-3
    with pytest.raises(UserError, match=r"another vision tower than the model \(encoder.layers.1.mlp.fc1.bias differs"):
        prune(other, TRIM(ratio=0.5, text_checkpoint=folder)).__enter__()
    with pytest.raises(UserError, match="another vision tower than the model"):
        prune(build("qwen2_5_vl"), TRIM(ratio=0.5, text_checkpoint=folder)).__enter__()
    build("llava").save_pretrained(tmp_path / "llava")
    with pytest.raises(UserError, match="a model of type 'llava'; expected a whole CLIP model"):
        prune(build("llava"), TRIM(ratio=0.5, text_checkpoint=str(tmp_path / "llava"))).__enter__()
    with pytest.raises(UserError, match=r"no folder with a config\.json"):
        prune(build("llava"), TRIM(ratio=0.5, text_checkpoint=str(tmp_path))).__enter__()


def test_pickled_weights_are_not_loaded(folder: str, tmp_path: Path) -> None:
    for file in Path(folder).iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        prune(build("llava"), TRIM(ratio=0.5, text_checkpoint=str(tmp_path))).__enter__()


def test_a_half_precision_model_has_the_tower_of_the_checkpoint(folder: str) -> None:
    model = fresh_model("llava").half()
    with prune(model, TRIM(ratio=0.5, text_checkpoint=folder)):
        pass


def test_without_a_checkpoint_the_remedy_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"the CLIP model that the tower is from \(text_checkpoint=FOLDER\)"):
        kept(TRIM(ratio=0.5), "is there a circle ?")
    with pytest.raises(UserError, match="text_checkpoint is read with text=tower only, not with text=llm"):
        TRIM(text="llm", text_checkpoint="somewhere")


def test_a_record_has_the_content_of_the_checkpoint(folder: str) -> None:
    spec = MethodSpec("trim", ratio=0.5, settings={"text_checkpoint": folder})
    (resolved,) = spec.record(spec.pruner(), [True] * 4).resolved
    assert len(resolved["text_checkpoint"]) == 16
    assert folder not in resolved.values()
