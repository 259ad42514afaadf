"""`bench` on tiny models with random weights: what it measures, stores, reuses, derives and refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.latency.measure import Bench
from uniprune.latency.options import BenchOptions
from uniprune.latency.rows import BenchFile, BenchRow
from uniprune.latency.tables import flat, spreads
from uniprune.latency.timed_model import TimedModel, load_timed
from uniprune.modeling.loading import Placement
from uniprune.utils.console import RunProgress

pytestmark = pytest.mark.end_to_end

CPU = Placement("float32", "sdpa", "cpu")
MODELS = ("tiny-llava", "tiny-internvl", "tiny-qwen2.5-vl", "tiny-qwen3-vl")
QUICK = BenchOptions(text=8, new_tokens=2, repeats=2, warmup=1)
CHOICES = (MethodSpec("none"), MethodSpec("divprune", ratio=0.25), MethodSpec("random-pre", ratio=0.25))


@pytest.fixture(scope="module")
def llava() -> TimedModel:
    return load_timed("tiny-llava", random_weights=True, placement=CPU)


@pytest.fixture
def calls(llava: TimedModel) -> Any:
    """Batch size of every call of the model while the test runs."""
    seen: list[int] = []
    handle = llava.adapter.vision.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(1), with_kwargs=True
    )
    yield seen
    handle.remove()


class Labels(RunProgress):
    """Progress that notes what was announced."""

    def __init__(self) -> None:
        super().__init__(1, Console(quiet=True))
        self.labels: list[str] = []
        self.done = 0

    def begin(self, label: str) -> None:
        self.labels.append(label)

    def advance(self, rows: int) -> None:
        self.done += rows


def bench(
    llava: TimedModel, path: Path, options: BenchOptions = QUICK, choices: Any = CHOICES, progress: Any = None
) -> list[BenchRow]:
    return Bench(llava, choices, options, BenchFile(path), progress or Labels()).run()


def words(path: Path, *more: str) -> list[str]:
    quick = ["--text-tokens", "8", "--new-tokens", "2", "--repeats", "2", "--warmup", "1"]
    return ["bench", "--random-weights", "--output", str(path / "bench.jsonl"), *quick, *more]


def test_the_command_writes_table_csv_json_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {kind: tmp_path / "out" / f"b.{kind}" for kind in ("csv", "json", "png")}
    options = ["--csv", str(files["csv"]), "--json", str(files["json"]), "--plot", str(files["png"])]
    more = ["--model", *MODELS, "--method", "divprune", "fastv", "--ratio", "0.25", *options]
    assert main(words(tmp_path, *more)) == 0
    shown = capsys.readouterr()
    assert all(name in shown.out for name in (*MODELS, "prefill ms", "net x", "floor ms", "speed-up against"))
    rows = list(csv.DictReader(files["csv"].open()))
    methods = ("none", "divprune", "fastv")
    assert [(row["model"], row["method"]) for row in rows] == [(m, method) for m in MODELS for method in methods]
    stored = json.loads(files["json"].read_text())
    assert stored["environments"][0]["versions"]["torch"] == torch.__version__
    for row, kept in zip(rows, stored["rows"], strict=True):
        spans = [float(row[f"{span} ms"]) for span in ("vision", "projector", "method", "prefill", "decode", "ttft")]
        assert min(spans) > 0
        seconds = kept["row"]["measured"]["seconds"]
        for i, total in enumerate(seconds["total"]):
            parts = sum(seconds[span][i] for span in ("vision", "projector", "method", "prefill", "decode"))
            assert parts <= total * 1.001
            assert seconds["ttft"][i] == pytest.approx(total - seconds["decode"][i])
        ratio = 1.0 if row["method"] == "none" else 0.25
        layers = kept["row"]["measured"]["layers"]
        initial = float(row["visual tokens"])
        assert layers[-1] == pytest.approx(initial * ratio, abs=0.5)
        assert float(row["kept tokens"]) == pytest.approx(sum(layers) / len(layers))
        vanilla = next(one for one in rows if (one["model"], one["method"]) == (row["model"], "none"))
        times = {part: float(row[f"{part} ms"]) for part in ("prefill", "ttft")}
        times["net"] = times["prefill"] + float(row["method ms"])
        for part, operations in (("net", "llm TFLOPs"), ("prefill", "llm TFLOPs"), ("ttft", "total TFLOPs")):
            speed = float(vanilla[f"{part.replace('net', 'prefill')} ms"]) / times[part]
            ceiling = float(vanilla[operations]) / float(row[operations])
            assert float(row[f"{part} speed-up"]) == pytest.approx(speed)
            assert float(row[f"{part} ceiling"]) == pytest.approx(ceiling)
            assert float(row[f"{part} achieved"]) == pytest.approx(speed / ceiling)
        assert float(row["weight-read floor ms"]) > 0
    assert files["png"].read_bytes().startswith(b"\x89PNG")


def test_methods_of_configuration_and_a_seed_are_the_defaults(tmp_path: Path) -> None:
    assert main(words(tmp_path, "--seed", "3")) == 0
    rows = BenchFile(tmp_path / "bench.jsonl").rows.values()
    assert [row.setup.method.name for row in rows] == ["none", "random-pre", "divprune"]
    assert {row.setup.seed for row in rows} == {3}
    assert [row.setup.method.resolved[0]["seed"] for row in rows if row.setup.method.name == "random-pre"] == [3]


def test_methods_take_turns(llava: TimedModel, tmp_path: Path) -> None:
    """Every round starts with another one, so none is always first or always last."""
    progress = Labels()
    bench(llava, tmp_path / "b.jsonl", progress=progress)
    order = [label.split(" · ")[1] for label in progress.labels]
    none, div, pre = "none 1", "divprune 0.25", "random-pre 0.25"
    assert order == [none, div, pre, div, pre, none, pre, none, div]
    assert progress.done == 9


def test_warm_up_is_not_measured(llava: TimedModel, tmp_path: Path) -> None:
    rows = bench(llava, tmp_path / "b.jsonl", BenchOptions(text=8, new_tokens=2, repeats=3, warmup=2))
    assert all(len(values) == 3 for row in rows if row.measured for values in row.measured.seconds.values())


def test_measured_rows_are_used_again_unless_another_method_must_be_measured_in_turn(
    llava: TimedModel, tmp_path: Path, calls: list[int]
) -> None:
    path, progress = tmp_path / "b.jsonl", Labels()
    first = bench(llava, path)
    calls.clear()
    assert bench(llava, path, progress=progress) == first
    assert (calls, progress.done) == ([], 9)
    more = bench(llava, path, choices=(*CHOICES, MethodSpec("fastv", ratio=0.25)))
    assert len(calls) == 4 * 3
    assert [row.identity for row in more[:3]] == [row.identity for row in first]
    for row in more:  # every speed-up is that of the two rows shown
        assert row.vanilla == (more[0].measured and more[0].measured.reference())
    assert bench(llava, path) == more[:3]
    bench(llava, path, choices=(*CHOICES[:2], MethodSpec("fastv", ratio=0.5)))
    calls.clear()
    bench(llava, path)  # random-pre was not there when the others were measured last
    assert len(calls) == 3 * 3
    assert bench(llava, path, BenchOptions(text=8, new_tokens=2, repeats=3, warmup=1))[0] != first[0]


def test_other_code_or_dimensions_are_other_rows(
    llava: TimedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that git does not know of yet, and an edited configuration of a folder."""
    first = {row.identity for row in bench(llava, tmp_path / "b.jsonl")}
    monkeypatch.setattr("uniprune.latency.measure.package_hash", lambda: "0")
    assert not first & {row.identity for row in bench(llava, tmp_path / "b.jsonl")}
    folder = tmp_path / "model"
    weights = set()
    for layers in (4, 6):
        config = llava.adapter.model.config.to_dict()
        config["text_config"]["num_hidden_layers"] = layers
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        weights.add(load_timed(str(folder), random_weights=True, placement=CPU).weights)
    assert len(weights) == 2


def test_an_impossible_budget_is_a_row_that_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--model", "tiny-llava", "--method", "divprune", "fastv", "--ratio", "0.1", "--protocol", "average"]
    assert main(words(tmp_path, *more)) == 0
    assert "fastv 0.1, batch 1, 144 tokens: an average keep ratio of 0.1" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"no row", b"no row\n", b"{}\n\x89PNG"])
def test_a_file_of_something_else_is_left_as_it_was(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bench.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"line 1 is not a measured row|is no stored line"):
        BenchFile(path).append([])
    assert path.read_bytes() == content


def test_an_interrupt_keeps_what_was_finished(llava: TimedModel, tmp_path: Path) -> None:
    class Impatient(Labels):
        def begin(self, label: str) -> None:
            super().begin(label)
            if "2 x" in label:
                raise KeyboardInterrupt("now")

    path, both = tmp_path / "b.jsonl", BenchOptions(batches=(1, 2), text=8, new_tokens=2, repeats=2, warmup=1)
    with pytest.raises(KeyboardInterrupt, match="now"):
        bench(llava, path, both, progress=Impatient())
    assert len(BenchFile(path).rows) == 3
    path.write_bytes(path.read_bytes() + b'{"identity": "cut sho')
    assert [row.setup.batch for row in bench(llava, path, both)] == [1, 1, 1, 2, 2, 2]
    assert len(BenchFile(path).rows) == 6


def test_out_of_memory_is_a_row_that_says_so_and_is_tried_again(llava: TimedModel, tmp_path: Path) -> None:
    def refuse(module: object, args: object, kwargs: dict[str, Any]) -> None:
        if len(kwargs["inputs_embeds"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    path, both = tmp_path / "b.jsonl", BenchOptions(batches=(1, 2), text=8, new_tokens=2, repeats=2, warmup=1)
    handle = llava.adapter.decoder.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        rows = bench(llava, path, both)
    finally:
        handle.remove()
    assert [(row.setup.batch, row.error) for row in rows] == [(1, None)] * 3 + [(2, "out of memory")] * 3
    assert rows[-1].speedups == {}
    assert flat(rows[-1])["error"] == "out of memory"
    again = bench(llava, path, both)
    assert again[:3] == rows[:3]
    assert all(row.error is None for row in again)


def test_a_method_that_refuses_the_model_is_a_row_that_says_so(tmp_path: Path) -> None:
    internvl = load_timed("tiny-internvl", random_weights=True, placement=CPU)
    choices = (MethodSpec("none"), MethodSpec("visionzip", ratio=0.25, settings={"cls": "true"}))
    none, refused = bench(internvl, tmp_path / "b.jsonl", choices=choices)
    assert none.measured is not None
    assert refused.error is not None
    assert "cannot be projected" in refused.error


def test_equal_tokens_are_compared_among_rows_measured_in_turn(llava: TimedModel, tmp_path: Path) -> None:
    rows = bench(llava, tmp_path / "b.jsonl")
    (note,) = spreads(rows)
    assert "prefills of divprune 0.25, random-pre 0.25 differ by" in note
    apart = [rows[1], rows[2].model_copy(update={"vanilla": None})]
    assert spreads(apart) == []


def test_checkpoints_are_timed_too(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    arguments = [word for word in words(tmp_path, "--method", "none") if word != "--random-weights"]
    assert main([*arguments, "--model", str(checkpoint("qwen2.5-vl")), "--tokens", "36"]) == 0
    (row,) = BenchFile(tmp_path / "bench.jsonl").rows.values()
    assert len(row.setup.weights) == 16
    assert row.setup.visual == 36
