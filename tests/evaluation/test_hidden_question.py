"""A question that methods do not know when they decide: `--question hidden`."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.helpers.pruners import FixedAnswer
from tests.helpers.tiny import build, inputs
from uniprune.cli.main import main
from uniprune.engine import prune
from uniprune.errors import PruningError, UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.processing import RequestEncoder
from uniprune.evaluation.prompts import check_hidden, images_first
from uniprune.methods.cdpruner import CDPruner
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.vtw import VTW
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.loading import Placement, load
from uniprune.modeling.messages import Part
from uniprune.pruning.base import Pruner
from uniprune.pruning.view import View

Checkpoint = Callable[[str], Path]


def test_images_come_first_in_their_order() -> None:
    a, b = (Part(image=Image.new("L", (1, n))) for n in (1, 2))
    one, two = Part(text="one"), Part(text="two")
    assert images_first([one, a, two, b]) == [a, b, one, two]
    ordered = [a, b, one]
    assert images_first(ordered) is ordered


@pytest.mark.parametrize("pruner", [FastV(), CDPruner(), DivPrune() >> FastV()], ids=["inside", "before", "composed"])
def test_methods_that_look_at_the_question_are_refused(pruner: Pruner) -> None:
    with pytest.raises(UserError, match=r"(FastV|CDPruner) chooses tokens by the question.*list methods"):
        check_hidden(pruner, 32)


@pytest.mark.parametrize("pruner", [DivPrune(), VTW()], ids=["before", "inside"])
def test_other_methods_are_not(pruner: Pruner) -> None:
    check_hidden(pruner, 32)


LOOKS: dict[str, Callable[[View], object]] = {
    "prompt": lambda view: view.prompt,
    "text": lambda view: view.text,
    "after": lambda view: view.after,
    "embedded": lambda view: view.embedded.text,
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_text_is_read_by_methods_only_that_declare_it(look: Callable[[View], object]) -> None:
    class Secret(FixedAnswer):
        """Reads text in secret."""

    with (
        pytest.raises(PruningError, match=r"Secret reads text of the prompt.*prompt_aware = True"),
        prune(build("llava"), Secret(answer=lambda view, keep: look(view))),
        torch.no_grad(),
    ):
        build("llava")(**inputs("llava"))


@pytest.mark.parametrize("rows", ["last", "prompt", "text", torch.tensor([0])], ids=str)
def test_so_is_attention_from_text(rows: str | torch.Tensor) -> None:
    class Secret(FixedAnswer):
        """Reads attention in secret."""

        llm_attention, prompt_aware = True, False

    with (
        pytest.raises(PruningError, match="Secret reads text"),
        prune(build("llava"), Secret(answer=lambda view, keep: view.attention(rows), layer=2)),  # type: ignore[arg-type]
        torch.no_grad(),
    ):
        build("llava")(**inputs("llava"))


def test_attention_between_visual_tokens_is_free() -> None:
    class Own(FixedAnswer):
        """Ranks by attention from the image."""

        llm_attention, prompt_aware = True, False

    pruner = Own(answer=lambda view, keep: view.attention("visual").sum((0, 1)).topk(keep).indices, layer=2)
    with prune(build("llava"), pruner) as session, torch.no_grad():
        build("llava")(**inputs("llava"))
    assert session.reports[0].pruned


@pytest.mark.end_to_end
def test_rows_whose_images_move_are_remarked(checkpoint: Checkpoint) -> None:
    loaded = load(ModelEntry(name="tiny", source=str(checkpoint("internvl"))), Placement("float32", "sdpa", "cpu"))
    image = Part(image=Image.new("RGB", (96, 96)))
    orders = {"first": [image, Part(text="is it red?")], "last": [Part(text="is it red?"), image]}
    rows = {
        (order, question): RequestEncoder(loaded.processor, question=question).encode(  # type: ignore[arg-type]
            Request(order, lambda parts=parts: parts, "is it red?")
        )
        for order, parts in orders.items()
        for question in ("seen", "hidden")
    }
    assert {row.error for row in rows.values()} == {None}
    assert [key for key, row in rows.items() if "images moved" in row.remarks] == [("last", "hidden")]
    ids = {key: row.inputs["input_ids"].tolist() for key, row in rows.items()}
    assert ids["first", "hidden"] == ids["first", "seen"] != ids["last", "seen"]
    assert ids["last", "hidden"] == ids["first", "hidden"]


@pytest.mark.end_to_end
def test_a_run_without_the_question(checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seen and hidden are two settings of the leaderboard, with a column that tells them apart."""
    words = ["run", "--model", str(checkpoint("internvl")), "--data", "mini-pope", "--limit", "2", "--ratio", "0.25"]
    words += ["--output", str(tmp_path)]
    for question in ("seen", "hidden"):
        assert main([*words, "--method", "divprune", "--question", question]) == 0
    with (tmp_path / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["question"] for row in rows} == {"seen", "hidden"}
    assert len({row["identity"] for row in rows}) == 2
    assert all(row["rank"] == "" for row in rows)
    capsys.readouterr()
    assert main([*words, "--method", "fastv", "--question", "hidden"]) == 2
    assert "FastV chooses tokens by the question" in capsys.readouterr().err
