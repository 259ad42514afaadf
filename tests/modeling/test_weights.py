"""The hash of a checkpoint is over all files that are loaded, and weights fit the model exactly."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from uniprune.errors import UserError
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.checkpoints import checkpoint_files, fingerprint
from uniprune.modeling.loading import LoadedModel, Placement, load, outline, with_weights

pytestmark = pytest.mark.end_to_end

CPU = Placement("float32", "sdpa", "cpu")
Checkpoint = Callable[[str], Path]
Tensors = dict[str, torch.Tensor]
WEIGHTS = "model.safetensors"


def entry(folder: Path) -> ModelEntry:
    return ModelEntry(name=str(folder), source=str(folder))


@pytest.fixture
def folder(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint("llava"), tmp_path / "model"))


def shard(folder: Path, name: str, shown: str | None = None) -> Path:
    """Move the weights to `name`, relative to the folder, and write an index that names them `shown`."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path, {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, shown or name)}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    return path


def test_weights_of_a_subfolder_are_loaded_and_hashed(folder: Path) -> None:
    path = shard(folder, "parts/one.safetensors")
    before = load(entry(folder), CPU)
    save_file({name: 0 * tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    after = load(entry(folder), CPU)
    assert before.weights != after.weights
    assert [bool(one.model.lm_head.weight.any()) for one in (before, after)] == [True, False]


@pytest.mark.parametrize(
    "shown", ["../outside.safetensors", "parts/../../outside.safetensors", "{}/outside.safetensors"]
)
def test_weights_outside_the_folder_are_refused_by_name(shown: str, folder: Path) -> None:
    shown = shown.format(folder.parent)
    shard(folder, "../outside.safetensors", shown)
    for check in (fingerprint, lambda folder: load(entry(folder), CPU)):
        with pytest.raises(UserError, match=r"index\.json names '.*outside\.safetensors', which lies outside"):
            check(folder)


@pytest.mark.parametrize("what", ["file", "folder", "tokenizer"])
def test_links_that_lead_out_of_the_folder_are_refused_by_name(what: str, folder: Path) -> None:
    name = {"file": WEIGHTS, "folder": "parts/one.safetensors", "tokenizer": "tokenizer.json"}[what]
    moved = shard(folder, name) if what == "folder" else folder / name
    if what == "folder":
        moved = moved.parent
    target = Path(shutil.move(moved, folder.parent / f"outside-{moved.name}"))
    moved.symlink_to(target)
    with pytest.raises(UserError, match=rf"{name} leads out of the folder, to .*outside-"):
        load(entry(folder), CPU)


def test_links_inside_the_folder_are_followed(folder: Path) -> None:
    before = fingerprint(folder)
    (folder / "store").mkdir()
    (folder / WEIGHTS).rename(folder / "store" / "abc")
    (folder / WEIGHTS).symlink_to(Path("store") / "abc")
    assert load(entry(folder), CPU).weights == before == fingerprint(folder)


@pytest.mark.parametrize("blobs", ["models--some--thing/blobs", "blobs/ab"])
def test_a_snapshot_of_the_hubs_cache_is_a_folder(blobs: str, folder: Path, tmp_path: Path) -> None:
    """Its files are links to the repository's blobs, which may be links to a folder for all repositories."""
    before = fingerprint(folder)
    snapshot = tmp_path / "hub" / "models--some--thing" / "snapshots" / "0123"
    (store := tmp_path / "hub" / blobs).mkdir(parents=True)
    shutil.copytree(folder, snapshot)
    for number, path in enumerate(sorted(snapshot.iterdir())):
        path.rename(store / str(number))
        path.symlink_to(os.path.relpath(store / str(number), snapshot))
    assert load(entry(snapshot), CPU).weights == before


@pytest.mark.parametrize(
    "name",
    [
        "adapter_config.json", "added_tokens.json", "chat_template.json", "generation_config.json", "merges.bpe",
        "additional_chat_templates/tool.jinja", "preprocessor_config.json", "qwen.tiktoken",
        "video_preprocessor_config.json", "decoder_tokenizer/tokenizer.json",
    ],
)  # fmt: skip
def test_everything_that_may_be_read_counts(name: str, folder: Path) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    found = []
    for content in ("{}", '{"a": 1}'):
        (folder / name).write_text(content)
        found.append(fingerprint(folder))
    assert name in checkpoint_files(folder)
    assert len(set(found)) == 2


def test_results_and_hidden_files_in_the_folder_do_not_count(folder: Path) -> None:
    before = fingerprint(folder)
    for name in ("results/abc/record.json", ".cache/huggingface/download/model.metadata", ".gitattributes"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    assert fingerprint(folder) == before


opened: list[str] | None = None


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if opened is not None and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        opened.append(os.fsdecode(arguments[0]))


def test_no_file_is_opened_that_does_not_count(folder: Path) -> None:
    """Every file of the folder that loading opens is hashed; safetensors opens weights itself, below Python."""
    global opened
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("{{ messages }}")
    sys.addaudithook(_audit)
    opened = []
    try:
        outline(entry(folder), CPU)
        read = {Path(name) for name in opened if name.startswith(str(folder))}
    finally:
        opened = None
    assert folder / "config.json" in read
    assert folder / "additional_chat_templates" / "tool.jinja" in read
    assert read <= set(checkpoint_files(folder).values())


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return sys.exit, ("a pickle ran",)


def test_pickles_are_never_loaded(folder: Path) -> None:
    before = load(entry(folder), CPU).model.lm_head.weight
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    assert torch.equal(load(entry(folder), CPU).model.lm_head.weight, before)
    shard(folder, "a.safetensors", "pytorch_model.bin")
    with pytest.raises(UserError, match=r"names 'pytorch_model\.bin'; only weights in the format safetensors"):
        load(entry(folder), CPU)
    (folder / f"{WEIGHTS}.index.json").unlink()
    with pytest.raises(UserError, match=r"no weights \(expected model\.safetensors"):
        load(entry(folder), CPU)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *(
            (content, "is no index of weights")
            for content in ("[]", "{", '{"weight_map": []}', '{"weight_map": {"a": 1}}')
        ),
        ('{"weight_map": {"a": "gone.safetensors"}}', "names 'gone.safetensors', which is missing"),
    ],
)
def test_a_damaged_index_is_named(content: str, message: str, folder: Path) -> None:
    (folder / f"{WEIGHTS}.index.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load(entry(folder), CPU)


def test_a_folder_that_hides_a_hub_id_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The identity would have the hub's commit, the predictions the folder's weights."""
    monkeypatch.chdir(folder.parent)
    (folder.parent / "some").mkdir()
    folder.rename(folder.parent / "some" / "thing")
    with pytest.raises(UserError, match=r"'some/thing', in whose place .*/some/thing; give that path"):
        outline(ModelEntry(name="thing", source="some/thing"), CPU)


def test_an_adapter_is_refused_by_name(folder: Path) -> None:
    """With peft it would change the model, without it would not, in the same identity."""
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "elsewhere"}')
    with pytest.raises(UserError, match=r"has an adapter \(adapter_config\.json\).*merge_and_unload"):
        outline(entry(folder), CPU)


@pytest.mark.parametrize("named", ["adapter_model.bin", "parts/model.safetensors", "../outside.safetensors"])
def test_other_weights_named_by_the_configuration_are_refused(named: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": named}))
    with pytest.raises(UserError, match=f"names '{named}' as its weights"):
        outline(entry(folder), CPU)


def changed(folder: Path, change: Callable[[Tensors], object]) -> LoadedModel:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return load(entry(folder), CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(extra=torch.zeros(3)), r"1 parameters without a place in Llava\w+ \(first: .*extra\)"),
        (
            lambda t: t.update({n.replace("layers.5", "layers.6"): t[n].clone() for n in list(t) if "layers.5" in n}),
            "parameters without a place",
        ),
        (lambda t: t.pop(next(n for n in t if "layers.3.mlp.up" in n)), "lack 1 parameters .*would be random"),
        (
            lambda t: t.update({next(n for n in t if "layers.3.mlp.up" in n): torch.zeros(3, 4)}),
            r"1 parameters of another shape .*layers\.3\.mlp\.up_proj\.weight, \(3, 4\) instead of",
        ),
    ],
)
def test_weights_must_fit_the_model(change: Callable[[Tensors], object], message: str, folder: Path) -> None:
    with pytest.raises(UserError, match=message):
        changed(folder, change)


def test_fewer_layers_than_weights_are_refused(folder: Path) -> None:
    """As a checkpoint of six layers with `num_hidden_layers: 3`, which would score like a method that cuts them off."""
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"parameters without a place .*layers\.3\..*config\.json and the weights must"):
        load(entry(folder), CPU)


def test_weights_that_transformers_declares_ignorable_are_ignored(folder: Path) -> None:
    """Old checkpoints store what today's models compute."""
    loaded = changed(folder, lambda t: t.update({"vision_tower.embeddings.position_ids": torch.arange(4)}))
    assert loaded.num_layers == 6


def test_a_folder_that_changes_before_it_is_loaded_is_refused(folder: Path) -> None:
    plan = outline(entry(folder), CPU)
    tensors = load_file(folder / WEIGHTS)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(UserError, match="was changed while this command was running"):
        with_weights(plan)
