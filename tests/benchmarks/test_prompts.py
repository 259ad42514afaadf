"""Families word their prompts as VLMEvalKit's own wrappers of them do, on the same rows."""

from __future__ import annotations

import csv
import importlib
import inspect
import json
import re
import sys
import types
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.kit_tables import EXAMPLES, write
from uniprune.benchmarks._kit.boot import boot, untouched
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.cli.main import main
from uniprune.evaluation.dataset import DataOptions, Request
from uniprune.evaluation.prompts import prompts_hash, worded
from uniprune.modeling.catalog import catalog
from uniprune.modeling.messages import Part, RawQuestion
from uniprune.registry import MODELS
from uniprune.results.comparison import RunComparison
from uniprune.results.store import Store

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def wrappers():
    """The kit's model classes, imported without its model zoo, made without weights."""
    root, (llava, internvl, qwen, qwen3, glm, gemma) = modules(
        *("llava.llava", "internvl.internvl_chat", "qwen2_vl.model", "qwen3_vl.model", "cogvlm", "gemma")
    )
    options = {"use_mpo_prompt": False, "use_cot": False, "kwargs": {}}
    made = {
        "llava": (llava.LLaVA, {}),
        "llava_next": (llava.LLaVA_Next, {}),
        "internvl": (internvl.InternVLChat, {"_use_custom_prompt": True, **options}),
        "qwen2_vl": (qwen.Qwen2VLChat, {"_use_custom_prompt": registered(root, "Qwen2-VL-7B-Instruct")}),
        "qwen2_5_vl": (qwen.Qwen2VLChat, {"_use_custom_prompt": registered(root, "Qwen2.5-VL-7B-Instruct")}),
        "qwen3_vl": (qwen3.Qwen3VLChat, {"_use_custom_prompt": registered(root, "Qwen3-VL-8B-Instruct")}),
        "qwen3_vl_moe": (qwen3.Qwen3VLChat, {"_use_custom_prompt": registered(root, "Qwen3-VL-30B-A3B-Instruct")}),
        "gemma3": (gemma.Gemma3, {"system_prompt": default_of(gemma.Gemma3, "system_prompt")}),
        "gemma4": (gemma.Gemma4, {"_load_image": lambda path: path}),
    }
    objects = {}
    for name, (cls, attributes) in made.items():
        objects[name] = cls.__new__(cls)
        vars(objects[name]).update(attributes, dump_image_func=lambda line: list(range(shown(line))))
    return objects | {"reorganize": internvl.reorganize_prompt, "glm": glm.GLMThinking.build_msgs}


def modules(*names: str) -> tuple[Path, list[types.ModuleType]]:
    """The kit's folder, and its modules of these models, imported without its model zoo."""
    boot()
    root = Path(sys.modules["vlmeval"].__path__[0])
    empty = {"vlmeval.tools": {"cli": None}, "vlmeval.config": {"supported_VLM": {}}}
    empty["vlmeval.vlm"] = {"__path__": [str(root / "vlm")]}
    with untouched():
        for name, contents in empty.items():
            sys.modules[name] = types.ModuleType(name)
            vars(sys.modules[name]).update(contents)
        try:
            return root, [importlib.import_module(f"vlmeval.vlm.{name}") for name in names]
        finally:
            for name in empty:
                del sys.modules[name]


def default_of(cls: type, name: str) -> str:
    """Return the default of an option of a wrapper, from its source."""
    [value] = re.findall(rf"kwargs.pop\('{name}', '(.*?)'\)", inspect.getsource(cls))
    return value


def registered(root: Path, name: str) -> bool:
    """Check in the kit's table of models if one words its own prompts."""
    [arguments] = re.findall(rf'"{re.escape(name)}": partial\((.*?)\n    \),', (root / "config.py").read_text(), re.S)
    return "use_custom_prompt=False" not in arguments


def shown(line) -> int:
    return len(line["image"]) if isinstance(line["image"], list) else 1


def rows(name: str) -> list:
    """The example's rows, one of them in Chinese and one with a hint."""
    changed = [dict(row) for row in EXAMPLES[name].rows]
    if name in ("mmbench-cn", "scienceqa"):
        changed[0]["question"] = "图中是什么颜色?"
        changed[-1]["hint"] = "Look closely."
    return changed


def asked(name: str, folder: Path) -> tuple[KitDataset, list[Request]]:
    tsv = write(folder / f"{name}.tsv", rows(name))
    dataset = KitDataset(name, TASKS[name], tsv, DataOptions(folder, judge="rule"))
    return dataset, dataset.requests()


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "family",
    ["llava", "llava_next", "internvl", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "gemma3", "gemma4"],
)
@pytest.mark.parametrize("name", TASKS)
def test_prompts_are_those_of_the_wrapper(name, family, wrappers, tmp_path):
    dataset, requests = asked(name, tmp_path)
    wrapper, kit_name = wrappers[family], TASKS[name].kit_name
    prompt = partial(MODELS.get(family).prompt, None)
    for position, request in enumerate(requests):
        pieces = prompt(request.raw)
        if not wrapper.use_custom_prompt(kit_name):
            assert pieces is None and worded(request, prompt) is request
            continue
        if request.raw.kind == "own":  # a named difference: this wrapper asks without the options
            assert pieces is None and worded(request, prompt) is request
            continue
        row = dataset._data.data.iloc[position]
        message = wrapper.build_prompt(row, dataset=kit_name)
        if family == "internvl":  # how its `generate` joins the message
            joined = "".join("<image>\n" if isinstance(piece, int) else piece for piece in pieces)
            assert joined == wrappers["reorganize"](message, shown(row), dataset=kit_name)
        else:
            assert pieces == [item["value"] for item in message]
            assert [isinstance(p, int) for p in pieces] == [item["type"] == "image" for item in message]


@pytest.mark.parametrize("name", TASKS)
def test_glm_adds_to_a_question_what_its_wrapper_adds(name, wrappers, tmp_path):
    """It has no prompts of its own: the benchmark's message, and sometimes a text of its own after it."""
    for request in asked(name, tmp_path)[1]:
        message = [{"type": "text", "value": request.raw.text}]
        [user] = wrappers["glm"](None, message, dataset=TASKS[name].kit_name)
        texts = [item["text"] for item in user["content"]]
        pieces = MODELS.get("glm4v").prompt(None, request.raw)
        assert texts == ([request.raw.text] if pieces is None else [p for p in pieces if isinstance(p, str)])
        assert pieces is None or pieces[: len(request.raw.images)] == [*range(len(request.raw.images))]


@pytest.mark.parametrize("family", ["gemma3", "gemma4"])
def test_the_system_message_is_that_of_the_wrapper(family, wrappers, tmp_path):
    """Before the benchmark's own message; stored with its words."""
    adapter, [request, *_] = MODELS.get(family), asked("mmmu", tmp_path)[1]
    ours = worded(request, partial(adapter.prompt, None), adapter.system)
    message = [{"type": "text" if part.text else "image", "value": part.text} for part in request.load()]
    found = []
    for part in ours.load():
        found.append(("system" if part.system else "user", part.text))
    wanted = []
    for turn in wrappers[family].message2pipeline(message):
        wanted += [(turn["role"], piece.get("text")) for piece in turn["content"]]
    assert found == wanted
    assert ours.wording == ((adapter.system,) if adapter.system else ()) + request.wording
    assert (prompts_hash([ours]) == prompts_hash([request])) == (adapter.system is None)


def test_the_rules_were_not_all_the_same(tmp_path):
    """The comparison above meets every rule of a family."""
    endings = set()
    for name in TASKS:
        for request in asked(name, tmp_path)[1]:
            pieces = MODELS.get("internvl").prompt(None, request.raw) or [""]
            endings.add(str(pieces[-1]).removeprefix(request.raw.text)[-20:])
            if name == "mmmu" and request.index == "0":
                assert pieces[:4] == ["Image-1: ", 0, "Image-2: ", 1]
    assert {"", "a single word or phrase."[-20:], "given choices directly."[-20:]} <= endings
    assert any(ending.endswith("请直接回答选项字母。") for ending in endings)


def test_a_familys_message_shows_the_rows_pictures(tmp_path):
    dataset, [first, *_] = asked("mmmu", tmp_path)
    assert dataset.requests()[0] is first  # built once for plan and evaluation
    request = worded(first, lambda row: [1, "between", 0])
    parts = request.load()
    assert [part.text for part in parts] == [None, "between", None]
    assert [part.image.getpixel((0, 0))[0] for part in (parts[0], parts[2])] == [1, 0]
    assert request.wording == (1, "between", 0) and len(first.raw.images) == 2


def test_words_are_guarded_and_pictures_not_decoded_for_it():
    def untouchable():
        raise AssertionError("decoded")

    row = RawQuestion("X", "open", "Why?", images=[untouchable])
    request = Request("0", lambda: [Part(text="Why?")], "Why?", raw=row)
    hashes = {prompts_hash([worded(request, lambda row, end=end: [0, row.text + end])]) for end in ("", "!", "?")}
    assert len(hashes) == 3 and prompts_hash([request]) not in hashes
    assert prompts_hash([replace(request, wording=("Why?",))]) != prompts_hash([replace(request, wording=("Why? ",))])
    silent = Request("0", lambda: [Part(text="Why?")], "Why?")
    assert worded(silent, lambda row: [0, "x"]) is silent


def test_the_policy_is_part_of_the_run(checkpoint, tmp_path):
    common = ["--model", str(checkpoint("llava")), "--method", "none", "--data", "mini-scienceqa", "--limit", "2"]
    common += ["--max-new-tokens", "2", "--data-dir", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    assert main(common) == main([*common, "--prompts", "family"]) == 0
    records = [json.loads(file.read_text()) for file in (tmp_path / "out").glob("*/record.json")]
    assert {record["setup"]["prompts"] for record in records} == {"benchmark", "family"}
    parts = [json.loads(file.read_text()) for file in (tmp_path / "out").glob("*/mini-scienceqa.record.json")]
    assert {part["score"]["scorer"] for part in parts} == {boot().version}
    hashes = {part["prompts"] for part in parts}
    assert len(records) == len(hashes) == 2
    board = csv.DictReader((tmp_path / "out" / "leaderboard.csv").open())
    assert sorted("prompts=family" in row["settings"] for row in board) == [False, True]
    comparison = RunComparison(list(Store(tmp_path / "out").records()))
    # Neither is measured against the other.
    assert [comparison.baseline(group) for group in comparison.groups] == comparison.groups


def test_the_catalogue_asks_real_models_as_the_kit_does():
    assert {entry.prompts for entry in catalog().values() if entry.suite == "ten"} == {"family"}
    assert {entry.prompts for entry in catalog().values() if entry.suite == "mini"} == {"benchmark"}
