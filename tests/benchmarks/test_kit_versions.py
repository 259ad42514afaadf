"""Other versions of VLMEvalKit: named in every score, rated alike, and refused by name where they lack something."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.kit_agreement import TESTED, differences, measured, same_version, stored, table
from tests.helpers.kit_ratings import own_rating
from tests.helpers.kit_tables import EXAMPLES, write
from tests.helpers.paths import ROOT
from uniprune.benchmarks._kit.boot import USED, boot
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.headline import MME_CATEGORIES
from uniprune.benchmarks._kit.judges import RuleJudge
from uniprune.benchmarks._kit.official import OfficialFile
from uniprune.benchmarks._kit.replacing import replaced
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.benchmarks._kit.version import kit_version
from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions, Score

pytestmark = pytest.mark.end_to_end

RATERS = {
    **dict.fromkeys(("mme", "pope", "hallusionbench"), ("yorn", "{}_rating")),
    "mathvista": ("mathvista", "MathVista_acc"),
    **dict.fromkeys(("mathvision", "mathvision-mini"), ("mathv", "MATH_V_acc")),
    **dict.fromkeys(("gqa", "textvqa", "chartqa", "docvqa", "infovqa"), ("image_vqa", "d2df")),
    "mm-vet": ("mmvet", "MMVet_acc"),
    "llava-bench": ("llavabench", "LLaVABench_score"),
    "mia-bench": ("miabench", "get_score_dict"),
    "mmvp": ("multiple_choice", "report_acc_MMVP"),
    **dict.fromkeys(("hrbench-4k", "hrbench-8k"), ("hrbench", "report_acc_hrbench")),
}
"""Dataset -> the kit's function that rates it; multiple choice: `report_acc`."""


def opened(name: str, folder: Path, rows: list[dict[str, object]] | None = None) -> KitDataset:
    tsv = write(folder / f"{name}.tsv", rows or EXAMPLES[name].rows)
    return KitDataset(name, TASKS[name], tsv, DataOptions(folder, judge="rule"))


def rater(name: str) -> tuple[object, str]:
    if name == "refcoco":  # whose class both matches and rates; only its rating has means
        return np, "mean"
    module, function = RATERS.get(name, ("multiple_choice", "report_acc"))
    kinds = {"mme": "MME", "pope": "POPE", "hallusionbench": "Hallusion"}
    return sys.modules[f"vlmeval.dataset.{'' if module in ('image_vqa', 'miabench') else 'utils.'}{module}"], (
        function.format(kinds.get(name, ""))
    )


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_headline_is_the_kits_own_rating_where_that_runs(name: str, tmp_path: Path) -> None:
    example, dataset = EXAMPLES[name], opened(name, tmp_path)
    failed = set()
    for answers in (example.answers, *(dict.fromkeys(example.answers, text) for text in ("", "Yes", "no", "B", "7"))):
        score = dataset.score(answers, tmp_path / "scores")
        if reason := score.details.get("no_table"):
            failed.add(reason)
        else:
            assert score.value == pytest.approx(own_rating(name, score), abs=1e-9), answers
    # A named difference: later kits rate MME only if all of its categories are there.
    assert failed <= ({"VLMEvalKit's own rating failed: KeyError: 'OCR'"} if name == "mme" else set())


def test_mme_with_all_categories_is_rated_by_every_kit(tmp_path: Path) -> None:
    first, second = EXAMPLES["mme"].rows[:2]
    rows = [
        {**row, "index": 2 * i + k, "category": category}
        for i, category in enumerate(MME_CATEGORIES)
        for k, row in enumerate((first, second))
    ]
    dataset = opened("mme", tmp_path, rows)
    score = dataset.score({str(i): "Yes" if i % 4 < 3 else "No" for i in range(len(rows))}, tmp_path / "scores")
    assert score.details["table"][0]["perception"] == 5 * 50 + 5 * 200
    assert score.value == pytest.approx(own_rating("mme", score)) == pytest.approx(62.5)


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", EXAMPLES)
def test_no_headline_needs_the_kits_rating(name: str, tmp_path: Path) -> None:
    """Only those of OCRBench and VizWiz do: the kit writes no file of their rows, so ours are held to its total."""
    dataset = opened(name, tmp_path)

    def broken(*args: object, **kwargs: object) -> None:
        raise KeyError("moved")

    if name in ("ocrbench", "vizwiz"):
        with replaced(sys.modules["vlmeval.dataset.image_vqa"], dump=broken), pytest.raises(KeyError, match="moved"):
            dataset.score(EXAMPLES[name].answers, tmp_path / "scores")
        return
    whole = dataset.score(EXAMPLES[name].answers, tmp_path / "scores")
    module, function = rater(name)
    with replaced(module, **{function: broken}):
        score = dataset.score(EXAMPLES[name].answers, tmp_path / "scores")
    assert score.details.pop("table") == []
    assert score.details.pop("no_table") == "VLMEvalKit's own rating failed: KeyError: 'moved'"
    assert replace(score, details={}) == replace(whole, details={})


def test_a_failure_before_the_answers_are_matched_is_raised(tmp_path: Path) -> None:
    dataset = opened("pope", tmp_path)

    def broken(answer: str) -> str:
        raise ValueError("matching moved")

    with (
        replaced(sys.modules["vlmeval.dataset.utils.yorn"], YOrN_Extraction=broken),
        pytest.raises(ValueError, match="matching moved"),
    ):
        dataset.score(EXAMPLES["pope"].answers, tmp_path / "scores")


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", [name for name in EXAMPLES if TASKS[name].suite != "variants"])
def test_the_kit_in_use_asks_and_scores_as_recorded(name: str) -> None:
    """A version that is not recorded is held to the tested one, and so are copies of one whose code differs."""
    known = same_version(boot().version) or TESTED
    found = measured(name)
    assert differences(stored()[known]["datasets"][name], found) == [], (
        f"{boot().version} differs from {known}; python -m tests.helpers.kit_agreement --write NAME records it"
    )


def test_recorded_versions_differ_only_where_the_documentation_says_so() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert table() in page
    versions = stored()
    tested = versions.pop(TESTED)
    assert versions, "no other version is recorded"
    for other in versions.values():
        for name, entry in tested["datasets"].items():
            for phrase in differences(entry, other["datasets"][name]):
                if (name, phrase) != ("blink", "data"):
                    assert TASKS[name].module == "image_mcq" and "answer is" in phrase, (name, phrase)


def test_a_score_names_the_kit_that_is_imported_not_the_one_that_is_installed(tmp_path: Path) -> None:
    score: Score = opened("pope", tmp_path).score(EXAMPLES["pope"].answers, tmp_path / "scores")
    root = Path(sys.modules["vlmeval"].__path__[0])
    assert score.scorer == boot().version == kit_version(root)
    copy = shutil.copytree(root / "dataset", tmp_path / "kit" / "vlmeval" / "dataset").parent
    for name in ("utils", "smp"):
        shutil.copytree(root / name, copy / name)
    code = re.search(r"\(code [0-9a-f]{16}\)$", score.scorer)
    assert code is not None and kit_version(copy) == f"VLMEvalKit {code[0]}"
    with (copy / "dataset" / "utils" / "yorn.py").open("a") as file:
        file.write("# edited\n")
    assert code[0] not in kit_version(copy)
    subprocess.run(["git", "init", "-q", copy.parent], check=True)
    commit = ["git", "-C", copy.parent, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]
    subprocess.run([*commit, "--allow-empty"], check=True)
    assert re.match(r"VLMEvalKit [0-9a-f]{40} \(code ", kit_version(copy))
    metadata = copy.parent / "vlmeval-9.9.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vlmeval\nVersion: 9.9\n")
    (metadata / "direct_url.json").write_text(json.dumps({"url": "u", "vcs_info": {"commit_id": "e8e78f0" + "0" * 33}}))
    sys.path.insert(0, str(copy.parent))
    try:
        assert kit_version(copy).startswith("vlmeval 9.9 at e8e78f000000 (code ")
    finally:
        sys.path.remove(str(copy.parent))


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("dataset.utils.mathv.post_check", r"VLMEvalKit \(code .* has no post_check in vlmeval.dataset.utils.mathv; "),
        ("dataset.miabench", r"cannot be imported: No module named 'vlmeval.dataset.miabench'; "),
    ],
)
def test_a_kit_in_which_something_has_moved_is_refused_by_name(lacking: str, message: str, tmp_path: Path) -> None:
    for path, names in USED.items():
        if path == lacking:
            continue
        package = any(other.startswith(f"{path}.") for other in USED)
        file = tmp_path / "vlmeval" / (path.replace(".", "/") + ("/__init__.py" if package else ".py"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{name} = None\n" for name in names if f"{path}.{name}" != lacking))
    (tmp_path / "vlmeval" / "__init__.py").touch()
    code = (
        "from uniprune.benchmarks._kit.boot import boot\nfrom uniprune.errors import UserError\n"
        "try: boot()\nexcept UserError as error: print(error)\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{tmp_path}", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert re.search(message + "install the version that UniPrune is tested with", run.stdout)


@dataclass
class Replies:
    """A judge's replies, in order."""

    texts: Iterator[str]

    def working(self) -> bool:
        return True

    def generate(self, message: object, temperature: float = 0.0) -> str:
        return next(self.texts)


def graded(folder: Path, *texts: str) -> Score:
    with replaced(RuleJudge, replier=lambda *args: Replies(iter(texts))):
        return opened("mia-bench", folder).score(EXAMPLES["mia-bench"].answers, folder / "scores")


def test_a_file_that_the_kit_does_not_know_is_refused_and_not_called_altered(tmp_path: Path) -> None:
    source = OfficialFile("pope", replace(TASKS["pope"], kit_name="POPE_2"))
    with pytest.raises(UserError, match=r"pope: .* \(code \w+\) has no address and md5 of POPE_2; install the version"):
        source.published()
    source.path(tmp_path).write_text("x")
    assert source.inspect(tmp_path).state == "unchecked"


def test_gradings_outside_their_range_are_unread(tmp_path: Path) -> None:
    """The kit counts 12/10 as 120 %."""
    score = graded(
        tmp_path, "total score: 12/10.", "score of component 1: 1/2, total score: 5/10.", "total score: -1/9."
    )
    assert (score.value, score.unparsed, score.per_item) == (50, 2, {"1": 0.5})


def test_there_is_no_score_without_a_readable_grading(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="could read none of the judge's 3 replies"):
        graded(tmp_path, *["I would rather not."] * 3)
