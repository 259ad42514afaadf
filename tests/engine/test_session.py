"""The session leaves no trace, checks what methods return, and refuses what cannot give right results."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tests.helpers.pruners import FixedAnswer, Plan, Probe, generate, hooks_on
from tests.helpers.tiny import FAMILIES, IMAGE, PAD, VISION_START, build, fresh_model, inputs, visual
from uniprune.engine import PromptInfo, prune
from uniprune.errors import PruningError, UnsupportedError, UserError
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.random_pre import RandomPre
from uniprune.pruning.base import PreLLM, Pruner, Selection, Stage
from uniprune.pruning.view import View

family = pytest.mark.parametrize("family", FAMILIES)


def explode(view: View) -> None:
    if view.layer == 2:
        raise ZeroDivisionError("in select")


@family
def test_model_is_as_before_after_exit_and_exceptions(family: str) -> None:
    model, x = build(family), inputs(family)
    tokens, logits = generate(model, x)
    hooks, weights = hooks_on(model), {name: value.clone() for name, value in model.state_dict().items()}
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    with prune(model, FastV(ratio=0.25)):
        generate(model, x)
        assert hooks_on(model) > hooks
    assert hooks_on(model) == hooks
    broken = Probe(look=explode, plan={0: 0.5, 2: 0.1})
    with pytest.raises(ZeroDivisionError, match="in select"), prune(model, broken):
        generate(model, x)
    assert hooks_on(model) == hooks
    with pytest.raises(UserError, match="vision layers"), prune(model, Probe(look=len, layers=(77,), plan={0: 0.5})):
        pass
    assert hooks_on(model) == hooks
    again_tokens, again_logits = generate(model, x)
    assert torch.equal(tokens, again_tokens)
    assert torch.equal(logits, again_logits)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert attributes == {name: set(vars(module)) for name, module in model.named_modules()}


@family
def test_session_survives_a_caught_exception(family: str) -> None:
    model, x, fuse = build(family), inputs(family), [explode]
    probe = Probe(look=lambda view: fuse[0](view), plan={0: 0.5, 2: 0.1})
    with prune(model, probe) as session:
        with pytest.raises(ZeroDivisionError, match="in select"):
            generate(model, x)
        assert session.reports == []
        fuse[0] = lambda view: None
        after = generate(model, x)
    with prune(model, Plan(plan={0: 0.5, 2: 0.1})):
        clean = generate(model, x)
    assert torch.equal(after[1], clean[1])


WRONG = {
    "a list": (lambda view, keep: list(range(keep)), "list instead of a tensor"),
    "a mask": (lambda view, keep: torch.arange(len(view.tokens)) < keep, "dtype torch.bool"),
    "floats": (lambda view, keep: torch.arange(keep).float(), "dtype torch.float32"),
    "two dimensions": (lambda view, keep: torch.arange(keep)[None], r"shape \(1, 8\)"),
    "too few": (lambda view, keep: torch.arange(keep - 1), "7 indices; exactly 8 of 16"),
    "duplicates": (lambda view, keep: torch.arange(keep).clamp(max=5), "2 duplicate indices"),
    "too large": (lambda view, keep: torch.arange(keep) + 9, "indices from 9 to 16; expected 0 to 15"),
    "negative": (lambda view, keep: torch.arange(keep) - 1, "indices from -1 to 6"),
    "tokens of another shape": (
        lambda view, keep: Selection(torch.arange(keep), view.tokens[: keep - 1]),
        r"replacement tokens torch.float32 \(7, 64\); expected floating point \(8, 64\)",
    ),
    "NaN": (lambda view, keep: Selection(torch.arange(keep), view.tokens[:keep] * torch.nan), "NaN or infinity"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_answers_are_named(case: str) -> None:
    answer, message = WRONG[case]
    expected = f"Answer at layer 0, sample '17': select\\(\\) returned .*{message}"
    with prune(build("llava"), FixedAnswer(answer=answer)) as session, pytest.raises(PruningError, match=expected):
        session.samples = (PromptInfo("17"),)
        generate(build("llava"), inputs("llava"), 1)


@family
def test_merged_tokens_take_the_slot_of_their_index(family: str) -> None:
    """Replacement rows follow their index when the engine sorts."""
    model, x = build(family), inputs(family)
    merged: list[Tensor] = []

    def answer(view: View, keep: int) -> Selection:
        indices = torch.randperm(len(view.tokens), generator=view.generator)[:keep]
        merged.append(2 * view.tokens[indices.sort().values])
        return Selection(indices, 2 * view.tokens[indices])

    seen: list[Tensor] = []
    with prune(model, FixedAnswer(answer=answer)) as session:  # this hook runs after the session's
        hook = lambda module, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"])  # noqa: E731
        handle = model.get_decoder().layers[0].register_forward_pre_hook(hook, with_kwargs=True)
        generate(model, x, 1)
        handle.remove()
    indices = session.reports[-1].rows[0].stages[0].kept[0]
    text = x["input_ids"][0] != IMAGE
    kept = text | (~text & ~visual(x)[0])
    kept[visual(x)[0].nonzero()[:, 0][indices]] = True
    assert torch.equal(seen[0][0][visual(x)[0][kept]], merged[0])


def test_question_defaults_to_plain_text_after_the_image() -> None:
    model, x = build("qwen2_5_vl"), inputs("qwen2_5_vl", (1, 2))
    x["input_ids"][1, -2] = PAD  # a special token inside the question
    table = model.get_input_embeddings()
    probe = Probe(look=lambda view: (view.prompt, view.text), plan={0: 0.5}, scope="prompt")
    with prune(model, probe), torch.no_grad():
        generate(model, x, 1)
    for b, (prompt, text) in enumerate(probe.seen.values()):
        ids, real = x["input_ids"][b], x["attention_mask"][b].bool()
        after = ids[int((ids == IMAGE).nonzero()[0]) :]
        special = torch.tensor([IMAGE, PAD, VISION_START])
        assert torch.equal(prompt, table(after[~torch.isin(after, special)]))
        assert torch.equal(text, table(ids[real & (ids != IMAGE)]))


def test_question_is_that_of_the_prompt_info() -> None:
    model, x, question = build("llava"), inputs("llava"), torch.tensor([7, 8, 9])
    probe = Probe(look=lambda view: view.prompt, plan={2: 0.5})
    with prune(model, probe) as session:
        session.samples = (PromptInfo("17", question),)
        generate(model, x, 1)
    assert torch.equal(probe.seen[2, 0], model.get_input_embeddings()(question))


@dataclass(frozen=True, kw_only=True)
class NeedsText(PreLLM):
    needs_text: ClassVar[bool] = True
    ratio: float = 0.5

    def select(self, view: View, keep: int) -> Tensor:
        return torch.arange(keep)


def test_a_missing_question_is_an_error() -> None:
    x = inputs("llava")
    stop = int((x["input_ids"][0] == IMAGE).nonzero()[-1]) + 1
    x = {**x, "input_ids": x["input_ids"][:, :stop], "attention_mask": x["attention_mask"][:, :stop]}
    with prune(build("llava"), NeedsText()) as session:
        with pytest.raises(UserError, match="sample '0' has no text after its first image"):
            generate(build("llava"), x, 1)
        session.samples = (PromptInfo("0", torch.tensor([7])),)
        generate(build("llava"), x, 1)


def test_number_of_samples_must_fit() -> None:
    with prune(build("llava"), RandomPre(ratio=0.5)) as session:
        session.samples = (PromptInfo("a"), PromptInfo("b"))
        with pytest.raises(UserError, match="2 entries for a batch of 3 rows"):
            generate(build("llava"), inputs("llava", (1, 1, 1)), 1)


@dataclass(frozen=True, kw_only=True)
class ScheduledAt(Pruner):
    layers: tuple[int, ...]
    llm: bool = False

    @property
    def llm_attention(self) -> bool:  # type: ignore[override]
        return self.llm

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        return tuple(Stage(layer, 0.5, self) for layer in self.layers)


REFUSED: dict[str, tuple[type[Exception], str, Any]] = {
    "layer outside": (UserError, "layer 9 is outside", lambda: (build("llava"), FastV(ratio=0.5, layer=9))),
    "scheduled outside": (UserError, r"0\.\.4", lambda: (build("llava"), ScheduledAt(layers=(1, 5)))),
    "layers repeat": (UserError, "must increase", lambda: (build("llava"), ScheduledAt(layers=(2, 2)))),
    "attention at 0": (
        UnsupportedError,
        "layer 0",
        lambda: (build("llava"), ScheduledAt(layers=(0,), llm=True, layer=1)),
    ),
    "compact inside": (
        UnsupportedError,
        r"not at layers \[2\]",
        lambda: (build("llava"), FastV(ratio=0.5, positions="compact")),
    ),
    "compact with M-RoPE": (
        UnsupportedError,
        "M-RoPE",
        lambda: (build("qwen2_5_vl"), DivPrune(ratio=0.5, positions="compact")),
    ),
    "window and compact positions": (
        UnsupportedError,
        "sliding_attention",
        lambda: (
            fresh_model("internvl", use_sliding_window=True, sliding_window=8, max_window_layers=2),
            DivPrune(ratio=0.5, positions="compact"),
        ),
    ),
    "no model": (UserError, "no config.model_type", lambda: (torch.nn.Linear(2, 2), DivPrune(ratio=0.5))),
    "no family": (
        UserError,
        "unknown model family 'llama'",
        lambda: (build("llava").get_decoder(), DivPrune(ratio=0.5)),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_at_entry(case: str) -> None:
    error, message, make = REFUSED[case]
    model, pruner = make()
    hooks = hooks_on(model)
    with pytest.raises(error, match=message), prune(model, pruner):
        pass
    assert hooks_on(model) == hooks


def test_deepstack_models_are_refused() -> None:
    model = fresh_model("qwen2_5_vl")
    model.config.vision_config.deepstack_visual_indexes = [1]
    with pytest.raises(UnsupportedError, match="deepstack"), prune(model, RandomPre(ratio=0.5)):
        pass


def test_nested_sessions_are_refused() -> None:
    model, x = build("llava"), inputs("llava")
    with prune(model, RandomPre(ratio=0.5)):
        want = generate(model, x, 2)
        with pytest.raises(UnsupportedError, match="already being pruned"), prune(model, RandomPre(ratio=0.1)):
            pass
        assert torch.equal(generate(model, x, 2)[1], want[1])


@family
def test_training_and_labels_are_refused(family: str) -> None:
    model, x = build(family), inputs(family)
    with prune(model, RandomPre(ratio=0.5)):
        with pytest.raises(UnsupportedError, match="labels"):
            model(**x, labels=x["input_ids"])
        model.train()
        try:
            with pytest.raises(UnsupportedError, match="training mode"):
                model(**x)
        finally:
            model.eval()


@family
def test_new_images_on_a_pruned_cache_are_refused(family: str) -> None:
    model, x = build(family), inputs(family)
    with prune(model, RandomPre(ratio=0.5)), torch.no_grad():
        cache = model(**x, use_cache=True).past_key_values
        with pytest.raises(UnsupportedError, match="new images"):
            model(**x, past_key_values=cache)


def test_another_batch_size_on_a_pruned_cache_is_refused() -> None:
    model = build("llava")
    with prune(model, RandomPre(ratio=0.5)), torch.no_grad():
        cache = model(**inputs("llava"), use_cache=True).past_key_values
        with pytest.raises(UnsupportedError, match="2 rows"):
            model(input_ids=torch.tensor([[5], [6]]), past_key_values=cache)


def test_images_and_videos_together_are_refused() -> None:
    """Both have the placeholders of images there."""
    model, x = build("glm4v"), inputs("glm4v")
    with prune(model, RandomPre(ratio=0.5)), pytest.raises(UnsupportedError, match="images and videos"):
        model(**x, pixel_values_videos=x["pixel_values"], video_grid_thw=x["image_grid_thw"])
