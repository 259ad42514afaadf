"""Finding and loading models: names, folders, hub ids, and messages about missing parts."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing

from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.generation import Generator
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.processing import RequestEncoder
from uniprune.evaluation.run import Run
from uniprune.modeling.catalog import ModelEntry, catalog, find_model
from uniprune.modeling.checkpoints import fingerprint
from uniprune.modeling.loading import LoadedModel, Placement, load, outline, place
from uniprune.modeling.messages import Part

pytestmark = pytest.mark.end_to_end

CPU = Placement("float32", "sdpa", "cpu")
Checkpoint = Callable[[str], Path]


def load_folder(folder: Path, **settings: object) -> LoadedModel:
    return load(ModelEntry(name=str(folder), source=str(folder), **settings), CPU)  # type: ignore[arg-type]


def request(index: str, text: str, images: int = 1, side: int = 96) -> Request:
    pictures = tuple(Part(image=Image.new("RGB", (side, side // (1 + i)), (40 * i, 90, 200))) for i in range(images))
    return Request(index, lambda: (*pictures, Part(text=text)), question=text, max_new_tokens=4)


@pytest.mark.parametrize("family", ["llava", "llava-next", "internvl", "qwen2.5-vl"])
def test_every_family_loads_and_answers_in_batches_as_alone(family: str, checkpoint: Checkpoint) -> None:
    loaded = load_folder(checkpoint(family))
    chat, encoder = Generator(loaded), RequestEncoder(loaded.processor)
    asked = [("what color is the circle ?", 1), ("how many ?", 1), ("is it ?", 2), ("why ?", 0)]
    rows = [encoder.encode(request(str(i), *one)) for i, one in enumerate(asked)]
    together = chat.generate(rows)
    alone = [chat.generate([row])[0] for row in rows]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert loaded.num_layers == 6
    assert not loaded.model.training


def test_a_picture_the_processor_refuses_is_a_row_that_says_so(checkpoint: Checkpoint) -> None:
    """Qwen2.5-VL takes none that is over 200 times as wide as high; the other rows of a run must be asked."""
    encoder = RequestEncoder(load_folder(checkpoint("qwen2.5-vl")).processor)
    line = Part(image=Image.new("RGB", (3000, 10)))
    parts = (line, Part(text="what is it ?"))
    row = encoder.encode(Request("7", lambda: parts, question="what is it ?", max_new_tokens=4))
    assert "aspect ratio" in str(row.error)
    assert not row.inputs


def test_text_only_rows_and_start_token(checkpoint: Checkpoint) -> None:
    loaded = load_folder(checkpoint("llava"))
    row = RequestEncoder(loaded.processor).encode(request("0", "is there a circle ?", images=0))
    assert row.inputs["input_ids"][0].tolist().count(loaded.processor.tokenizer.bos_token_id) == 1
    assert loaded.processor.tokenizer.decode(row.question).strip() == "is there a circle?"
    assert (row.images, row.visual) == ((), {})
    assert Generator(loaded).generate([row])[0].tokens <= 4


def test_a_start_token_that_template_and_tokenizer_write_is_there_once(checkpoint: Checkpoint) -> None:
    """Gemma's, Llama 3's and Mistral's tokenizers add it; so does the template of some of their checkpoints."""
    processor = load_folder(checkpoint("llava")).processor
    start = processor.tokenizer.bos_token
    rule = TemplateProcessing(single=f"{start} $A", special_tokens=[(start, processor.tokenizer.bos_token_id)])
    processor.tokenizer.backend_tokenizer.post_processor = rule
    assert processor.tokenizer("circle").input_ids.count(processor.tokenizer.bos_token_id) == 1
    for template in (processor.chat_template, processor.chat_template.replace("{{ '<bos>' }}", "")):
        processor.chat_template = template
        row = RequestEncoder(processor).encode(request("0", "is there a circle ?"))
        assert row.inputs["input_ids"][0].tolist().count(processor.tokenizer.bos_token_id) == 1


def test_answers_stop_at_each_rows_own_length(checkpoint: Checkpoint) -> None:
    loaded = load_folder(checkpoint("llava"))
    chat, encoder = Generator(loaded), RequestEncoder(loaded.processor)
    chat._ends = set()  # an untrained model may end early; lengths are what is tested
    chat.model.generation_config.eos_token_id = None
    short, long = request("0", "a"), request("1", "b")
    short = Request(short.index, short.load, short.question, max_new_tokens=2)
    assert [reply.tokens for reply in chat.generate([encoder.encode(short), encoder.encode(long)])] == [2, 4]


def test_catalogue_names_the_papers_models() -> None:
    entries = catalog()
    assert {"llava-1.5-7b", "internvl3-8b", "qwen2.5-vl-7b", "tiny-llava"} <= set(entries)
    variants = ("7b-vicuna", "13b-vicuna", "7b-mistral", "8b-llama3")
    assert [entries[f"llava-next-{variant}"].source for variant in variants] == [
        "llava-hf/llava-v1.6-vicuna-7b-hf",
        "llava-hf/llava-v1.6-vicuna-13b-hf",
        "llava-hf/llava-v1.6-mistral-7b-hf",
        "llava-hf/llama3-llava-next-8b-hf",
    ]
    size = entries["qwen2.5-vl-7b"].image_processor["size"]
    assert size == {"shortest_edge": 256 * 28 * 28, "longest_edge": 1280 * 28 * 28}
    assert entries["tiny-llava"].suite == "mini"


def test_pixel_limits_of_the_catalogue_reach_the_processor(checkpoint: Checkpoint) -> None:
    limits = {"shortest_edge": 8 * 8 * 4, "longest_edge": 8 * 8 * 9}
    loaded = load_folder(checkpoint("qwen2.5-vl"), image_processor={"size": limits})
    grid = RequestEncoder(loaded.processor).encode(request("0", "how many ?")).inputs["image_grid_thw"]
    assert grid.tolist() == [[1, 6, 6]]
    assert loaded.image_processor["size"] == limits


def test_unknown_names_suggest_near_ones() -> None:
    with pytest.raises(UserError, match="did you mean 'tiny-llava'"):
        find_model("tiny-lava")


def test_a_folder_of_the_catalogue_is_that_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "weights").mkdir()
    models = tmp_path / "configs" / "models.yaml"
    models.write_text("small: {source: ./weights, suite: mini}\n")
    monkeypatch.setattr("uniprune.modeling.catalog.catalog", lambda: catalog(models))
    assert find_model(str(tmp_path / "weights")).name == "small"
    models.write_text("small: {sauce: weights}\n")
    with pytest.raises(UserError, match=r"models\.yaml is not a list of models"):
        find_model("small")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["processor_config.json"], "no image processor .*processor.save_pretrained"),
        (["tokenizer.json"], "no tokenizer"),
        (["model.safetensors"], "no weights"),
        (["config.json"], "no configuration"),
        (["chat_template.jinja"], "no chat template"),
    ],
)
def test_folder_without_a_part_names_it(files: list[str], message: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("llava"), folder, ignore=shutil.ignore_patterns(*files))
    with pytest.raises(UserError, match=message):
        load_folder(folder)


def test_missing_folder_is_not_taken_for_a_hub_id(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_folder(tmp_path / "gone")


def test_incomplete_and_damaged_weights_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("llava"), folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if "layers.3.mlp.up_proj" in name)
    save_file({key: value for key, value in tensors.items() if key != name}, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack 1 parameters .*would be random"):
        load_folder(folder)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_folder(folder)


def test_unregistered_family_is_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("llava"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "blip-2"}))
    with pytest.raises(UserError, match="unknown model family 'blip-2'"):
        load_folder(folder)


@pytest.mark.usefixtures("no_hub")
def test_unreachable_hub_names_id_and_remedies() -> None:
    with pytest.raises(UserError, match="cannot be reached") as caught:
        load(find_model("nobody/no-such-model"), CPU)
    for part in ("nobody/no-such-model", "path of a folder", "hf download nobody", "HF_HOME"):
        assert part in str(caught.value)


def cache(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make `folder` the hub cache, with a model as "somebody/something"; its commit."""
    import huggingface_hub.constants
    import transformers.utils.hub

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = folder / "models--somebody--something"
    shutil.copytree(model, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(transformers.utils.hub.constants, "HF_HUB_CACHE", str(folder))
    return commit


class Answers(BaseHTTPRequestHandler):
    """A hub that answers every request with 404, as for a repository that does not exist."""

    def do_HEAD(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    """A server on this machine in the hub's place, before an empty cache."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        server.asked = []  # type: ignore[attr-defined]
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        template = f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


def test_without_a_network_nothing_is_tried_for_long(hub: HTTPServer) -> None:
    """One refused connection is enough; retries would take half a minute."""
    hub.server_close()
    begin = time.perf_counter()
    with pytest.raises(UserError, match="cannot be reached") as caught:
        load(find_model("nobody/no-such-model"), CPU)
    assert time.perf_counter() - begin < 5
    for part in ("'nobody/no-such-model' is not in the local hub cache", "cannot be reached", "path of a folder"):
        assert part in str(caught.value)


def test_without_a_network_a_cached_checkpoint_loads_at_once(
    hub: HTTPServer, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that no checkpoint needs are not asked for, each for half a minute."""
    commit = cache(checkpoint("llava"), tmp_path / "hub", monkeypatch)
    hub.server_close()
    begin = time.perf_counter()
    loaded = load(find_model("somebody/something"), CPU)
    assert time.perf_counter() - begin < 10
    assert loaded.weights == commit


def test_what_the_hub_answers_is_told(hub: HTTPServer) -> None:
    Thread(target=hub.serve_forever, daemon=True).start()
    with pytest.raises(UserError, match="nobody/no-such-model is not a local folder and is not a valid"):
        load(find_model("nobody/no-such-model"), CPU)
    hub.shutdown()
    assert hub.asked[0] == "/nobody/no-such-model/resolve/main/config.json"  # type: ignore[attr-defined]


def test_fingerprint_follows_content_not_place(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint("llava"), folder)
    assert fingerprint(folder) == fingerprint(checkpoint("llava"))
    tensors = load_file(folder / "model.safetensors")
    first = next(iter(tensors))
    tensors[first] = tensors[first] + 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(folder) != fingerprint(checkpoint("llava"))


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"device": "cuda:99"}, "not available: .*--device cpu"),
        ({"device": "gpu"}, "unknown"),
        ({"device": "meta"}, "not available"),
        ({"dtype": "float8"}, "expected auto or one of float32"),
    ],
)
def test_bad_placement_is_refused(wish: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        place(**wish)


def test_automatic_placement_fits_the_machine() -> None:
    placement = place()
    assert placement.kind == ("cuda" if torch.cuda.is_available() else "cpu")
    assert placement.dtype == ("float32" if placement.kind == "cpu" else placement.dtype)


def test_hub_checkpoints_are_told_apart_by_commit(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    commit = cache(checkpoint("llava"), tmp_path, monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    entry = find_model("somebody/something")
    assert outline(entry, CPU).weights == commit
    assert load(entry, CPU).weights == commit


def test_an_outline_says_of_a_model_what_the_loaded_one_says(checkpoint: Checkpoint) -> None:
    entry = ModelEntry(name="tiny", source=str(checkpoint("qwen2.5-vl")))
    plan, loaded = outline(entry, CPU), load(entry, CPU)
    assert all(weight.is_meta for weight in plan.model.parameters())
    assert (plan.weights, plan.num_layers) == (loaded.weights, loaded.num_layers)
    first, second = (Run(model, MethodSpec("fastv", 0.25), RunOptions()).record for model in (plan, loaded))
    assert first == second
