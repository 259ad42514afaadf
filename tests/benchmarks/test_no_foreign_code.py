"""No cell, prediction or judge's reply is run as Python, whatever column or rule of VLMEvalKit it reaches."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers.kit_tables import EXAMPLES, Row, write
from tests.helpers.video_tables import EXAMPLES as VIDEO_EXAMPLES
from tests.helpers.video_tables import opened as opened_videos
from uniprune.benchmarks._kit.boot import boot, session
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.evaluators import INSTEAD, literals_only, read_literal
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.evaluation.dataset import DataOptions

pytestmark = pytest.mark.end_to_end


def code(mark: Path) -> str:
    """A list, as the kit's tables have them, that makes a file when it is run."""
    return f"[open({str(mark)!r}, 'w').close()]"


def hostile(rows: list[Row], mark: Path) -> list[Row]:
    """The rows, and for every column (and one that any table may have) a copy of one with code in its place."""
    names = [name for name in rows[0] if name not in ("index", "image", "video", "videoType")]
    copies = [{**rows[0], "index": 900 + i, name: code(mark)} for i, name in enumerate([*names, "image_path"])]
    return [*({**row, "image_path": row.get("image_path", "a.png")} for row in rows), *copies]


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_cell_and_no_prediction_is_run(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    rows = hostile(EXAMPLES[name].rows, mark)
    dataset = KitDataset(name, TASKS[name], write(tmp_path / "data.tsv", rows), DataOptions(tmp_path, judge="rule"))
    assert dataset.requests()
    for said in (code(mark), code(mark)[1:-1]):
        dataset.score({request.index: said for request in dataset.requests()}, tmp_path / "scores")
    assert not mark.exists()


@pytest.mark.parametrize("name", VIDEO_EXAMPLES)
def test_no_cell_of_a_video_benchmark_is_run(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    dataset = opened_videos(name, tmp_path, hostile(VIDEO_EXAMPLES[name].rows, mark))
    requests = dataset.requests()
    assert requests
    dataset.score({request.index: code(mark) for request in requests}, tmp_path / "scores")
    assert not mark.exists()


@pytest.mark.parametrize("call", ["eval('1 + 1')", "exec('import os')", "eval(compile('1', '', 'eval'))"])
def test_modules_of_the_kit_run_nothing_but_literals(
    call: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those imported before, and those imported meanwhile."""
    boot()
    (tmp_path / "late.py").write_text("def run(text):\n    return eval(text)\n")
    (tmp_path / "later.py").write_text(f"found = {call}\n")
    monkeypatch.setattr(sys.modules["vlmeval"], "__path__", [*sys.modules["vlmeval"].__path__, str(tmp_path)])
    with session():
        import vlmeval.late  # type: ignore[import-not-found]

        assert vlmeval.late.run(" [1, 'a']") == [1, "a"]
        with pytest.raises(ValueError, match=r"would run (it|'import os') as Python"):
            import vlmeval.later  # type: ignore[import-not-found]
    assert vlmeval.late.run("1 + 1") == 2, "the kit's own again"
    del sys.modules["vlmeval.late"]


def evaluators(module: ModuleType) -> list[str]:
    """Calls in a module's source that run a text by other means than the exchanged names."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    shadowed = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    hidden = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    found = [name for name in shadowed if name in INSTEAD]
    builtin = [name for name in [*shadowed, *hidden] if name in ("builtins", "__builtins__")]
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return [*found, *builtin, *(name for name in imported if name == "builtins")]


def test_every_call_in_the_kits_sources_finds_the_exchanged_names() -> None:
    """In all of its modules that are imported, `eval` and `exec` are names of the module, which nothing circumvents."""
    boot()
    with session():
        modules = [one for name, one in sys.modules.items() if name.startswith("vlmeval.") and one.__spec__]
        assert len(modules) > 20
        for module in modules:
            assert all(vars(module)[name] is function for name, function in INSTEAD.items()), module
            assert module.__file__ is None or not evaluators(module), module
    assert not any("eval" in vars(module) for module in modules)


def test_blocks_may_be_nested() -> None:
    module = boot().vqa_eval
    with literals_only():
        with literals_only():
            assert module.eval is read_literal
        assert module.eval is read_literal
    assert not hasattr(module, "eval")
