"""Answers of the literature: selection, spread, claims, our own numbers, and the command."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.records import dataset, run, tokens
from uniprune.cli import discover
from uniprune.cli.main import main
from uniprune.cli.parser import build_parser
from uniprune.errors import UserError
from uniprune.reports.printed.answer import Answer, answer
from uniprune.reports.printed.data import Literature, read_literature
from uniprune.reports.printed.page import page, plots
from uniprune.reports.printed.query import Question, find
from uniprune.results.records import RunRecord


@pytest.fixture(scope="module")
def literature() -> Literature:
    return read_literature()


@pytest.fixture(scope="module")
def fastv(literature: Literature) -> Answer:
    """FastV at 64 tokens on POPE."""
    return answer(Question("FastV", "POPE", tokens=64), [], literature)


def test_values_of_other_protocols_are_no_part_of_the_spread(fastv: Answer) -> None:
    usual, other = fastv.groups
    assert {value.table for value in usual.values} == {"llava15"}
    assert {value.source for value in usual.trusted if value.number == 36.1} == {"2606.01711"}
    assert usual.ends == (35.5, 48.0)
    assert usual.spread == 12.5
    assert [value.value for value in other.values] == ["61.38"]
    assert other.spread is None


def test_suspect_values_are_shown_and_in_no_spread(fastv: Answer) -> None:
    doubted = [value for value in fastv.groups[0].values if value.suspect]
    assert [(value.value, value.source) for value in doubted] == [("59.6", "Nuwa")]
    assert doubted[0] not in fastv.groups[0].trusted


def test_our_names_printed_names_and_their_case_find_the_same(literature: Literature) -> None:
    printed = find(literature, Question("FastV", "POPE", "llava-1.5-7b", tokens=64))
    assert find(literature, Question("fastv", "pope", "LLaVA-1.5-7B", ratio=0.111)) == printed
    reruns = [value.method for value in find(literature, Question("SparseVLM", "GQA", tokens=128))]
    assert {"SparseVLM", "SparseVLM (their rerun)"} == {*reruns}


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question("FastVV"), r"no paper here prints a method 'FastVV'; near: FastV, "),
        (Question(benchmark="POPPE"), r"no paper here prints a benchmark 'POPPE'; near: POPE"),
        (Question("xyzzy"), r"no paper here prints a method 'xyzzy'; printed are: AgilePruner, ApET, "),
        (
            Question("HoloV", "OCRBench", tokens=192),
            r"prints 192 tokens with 'HoloV' and 'OCRBench'; printed are: 128, 64",
        ),
        (Question("EADP", "MMMU"), r"no paper prints 'MMMU' with 'EADP'; printed are: AI2D, "),
    ],
)
def test_what_nobody_prints_is_answered_with_what_is_near(
    literature: Literature, question: Question, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        find(literature, question)


def test_a_budget_is_asked_for_once_and_in_range() -> None:
    with pytest.raises(UserError, match="--tokens and --ratio are two names of one budget"):
        Question(tokens=64, ratio=0.1)
    with pytest.raises(UserError, match="--ratio 64: expected a share"):
        Question(ratio=64)


def test_claims_are_set_against_the_larger_spread_of_both(fastv: Answer, literature: Literature) -> None:
    own = {claim.better.method: claim for claim in fastv.claims}
    assert own["HoloV"].lead == 32.3
    assert own["HoloV"].spread == 12.5
    assert own["HoloV"].verdict == "outside"
    assert own["IDPruner"].verdict == "single"
    close = answer(Question("DivPrune", "POPE", "llava-1.5-7b", tokens=64), [], literature)
    verdicts = {claim.better.method: claim.verdict for claim in close.claims}
    assert verdicts["MMTok"] == "inside"
    assert verdicts["TOPS"] == "outside"


def test_claims_hold_no_means_no_doubts_and_no_unpruned_model(literature: Literature) -> None:
    for claim in answer(Question(model="qwen2.5-vl-7b"), [], literature).claims:
        assert claim.better.benchmark not in ("average", "relative")
        assert not claim.better.suspect
        assert not claim.worse.suspect
        assert claim.worse.method != "vanilla"
        assert claim.better.row[:5] == claim.worse.row[:5]


def measured(method: str, average: float, benchmark: str = "pope", model: str = "llava-1.5-7b") -> RunRecord:
    scored = dataset([1, 0] * 30, ledger=tokens(average, initial=576.0))
    return run(method, {benchmark: scored}, ratio=average / 1000, model=model, prompts="family")


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (measured("fastv", 64.4), True),
        (measured("fastv", 70.0), False),  # the ratio's budget, but not the measured one
        (measured("fastv", 64.0, model="llava-1.5-13b"), False),
        (measured("fastv", 64.0, benchmark="gqa"), False),
        (measured("divprune", 64.0), False),
    ],
)
def test_ours_is_of_the_same_model_benchmark_method_and_measured_budget(
    literature: Literature, record: RunRecord, found: bool
) -> None:
    ours = answer(Question("FastV", "POPE", "llava-1.5-7b", tokens=64), [record], literature).ours
    assert [len(one) for one in ours] == [int(found)] * 2
    if found:
        assert ours[0][0].cell.value == 50
        low, high = ours[0][0].cell.interval or (0, 0)
        assert 30 < low < 50 < high < 70
        assert "fastv on pope, 64.4 visual tokens, 60 rows, protocol=site prompts=family " in ours[0][0].label


def test_ours_is_in_the_printed_unit_and_of_shares(literature: Literature) -> None:
    mme = answer(Question("FastV", "MME", "llava-1.5-7b", tokens=64), [measured("fastv", 64, "mme")], literature)
    assert mme.ours[0][0].cell.value == 28 * 50
    ocr = answer(
        Question("DART", "OCRBench", "llava-1.5-7b", tokens=64), [measured("dart", 64, "ocrbench")], literature
    )
    assert ocr.ours[0][0].cell.value == 500
    records = [measured("resize", tokens, "pope", "qwen2-vl-7b") for tokens in (144.0, 64.0)]
    groups = answer(Question("downsample", "POPE", ratio=0.25), records, literature)
    sets = {group.values[0].table: len(ours) for group, ours in zip(groups.groups, groups.ours, strict=True)}
    assert sets["vtc"] == 1
    assert all(count == 0 for table, count in sets.items() if table != "vtc")


def test_the_csv_has_every_value_and_its_source(fastv: Answer) -> None:
    lines = list(csv.DictReader(fastv.csv().splitlines()))
    assert len(lines) == sum(len(group.values) for group in fastv.groups)
    copy = next(line for line in lines if line["paper"] == "HoloV")
    assert (copy["printed"], copy["copy of"], copy["unpruned"]) == ("48.0", "2505.19536", "85.9")
    assert float(copy["of unpruned %"]) == pytest.approx(55.88, abs=0.01)


def test_the_page_has_a_plot_per_benchmark_and_budget_and_a_mark_per_value(literature: Literature) -> None:
    asked = answer(Question(benchmark="POPE", tokens=64), [measured("fastv", 64.0)], literature)
    drawn = plots(asked)
    assert len({group.values[0].group for group in asked.groups}) == len(drawn)
    text = page(asked)
    assert text.count("<title>ours: 50.0") == 4  # interval and mark, in both protocols of 64 tokens
    values = [value for group in asked.groups for value in group.values]
    assert text.count('r="4"') == len(values) + 5  # and the key
    assert text.count('class="suspect"') == sum(bool(value.suspect) for value in values) + 1
    places = [float(x) for x in re.findall(r'circle cx="([\d.]+)" cy', text)]
    assert all(0 < place < 720 for place in places)


def test_the_command_fits_80_columns(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked = ["compare", "--printed", "--output", str(tmp_path)]
    for words in ([], ["--benchmark", "POPE", "--tokens", "128"]):
        assert main([*asked, *words]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if len(line.rstrip()) > 80] == []
    assert main([*asked, "--method", "FastV", "--benchmark", "POPE", "--tokens", "64"]) == 0
    text = capsys.readouterr().out
    assert "59.6?" in text
    assert "? suspect: 59.6 is the 128-token value" in text
    assert "= 2505.19536  HoloV 2510.02912, Table 1" in text
    assert "ours: no stored run" in text


def test_the_docs_have_the_figures_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--printed"]) == 0
    shown = capsys.readouterr().out.partition("10,160 numbers")
    figures = re.findall(r"\d[\d,]*(?= suspect|; | inside| outside| without)", " ".join(shown[2].split()))
    assert len(figures) == 5
    docs = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    assert [figure for figure in ["10,160", *figures] if figure not in docs] == []


def test_options_that_do_not_go_together_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--method", "fastv"]) == 2
    assert "--method is about printed numbers; add --printed" in capsys.readouterr().err
    assert main(["compare", "--printed", "--paper", "fopru-table1"]) == 2
    assert "leave out --paper and --mini" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["cards"], ["cards", "--models", "page.md"], []])
def test_other_commands_prepare_torch(words: list[str]) -> None:
    assert build_parser(discover()).parse_args(words or ["run"]).imports_torch


@pytest.mark.end_to_end
def test_the_answer_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from uniprune.cli.main import main; "
        f"main(['compare', '--printed', '--method', 'FastV', '--output', {str(tmp_path)!r}]); "
        "sys.exit([name for name in ('torch', 'transformers', 'pandas', 'scipy') if name in sys.modules] or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
