"""Scores and prompts of every dataset under versions of VLMEvalKit: `python -m tests.helpers.kit_agreement`.

Prints the table of docs/benchmarks.md. `--write NAME` first scores with the kit that is imported (a folder on
PYTHONPATH goes before the installed one) and stores the result as tests/golden/kits/NAME.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers.kit_tables import EXAMPLES, Row, write
from tests.helpers.paths import TESTS
from uniprune.benchmarks._kit.boot import boot
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.official import OfficialFile
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.evaluation.dataset import DataOptions
from uniprune.utils.hashing import stable_hash

FOLDER = TESTS / "golden" / "kits"
TESTED = "ms-vlmeval-0.0.20"
"""The stored version that `pip install 'uniprune[vlmeval]'` installs."""
PHRASES = (
    *("{}", "{}.", "({})", "**{}**", "Answer: {}", "The answer is {}.", "the answer is {}", "It is {}, I think."),
    "The correct answer is **{}**. Here's why: of all that is shown in the image, nothing else fits the question.",
    "Let me see.\n\nFirst, there is a red shape next to a blue one.\n\nSo the best option is {}",
    *(
        "Not {}",
        "A or {}",
        "{} or nothing, I cannot tell from this image",
        "The answer is a small one",
        "",
        "Yes",
        "no",
    ),
)
"""Ways to word an answer, right or wrong."""
FIELDS = ("data", "prompts")
"""Fields that are compared besides scores."""
PLAIN = ("{}", "", "no idea")
"""Those for datasets whose answers a judge reads: what its rules make of the others is not the kit's."""
_READ: dict[str, Callable[[Row], str]] = {
    "mathvista": lambda row: str(row["answer_option"] or row["answer"]),
    **dict.fromkeys(
        ("mathvision", "mathvision-mini"),
        lambda row: {r"\frac{1}{2}": "0.5"}.get(str(row["answer"]), str(row["answer"])),
    ),
    "ocrbench": lambda row: {"['0012']": "0012", "['7']": "7", "['nan']": "nan"}.get(str(row["answer"]), "y"),
    "chartqa": lambda row: str(row["answer"]).strip("[]").split(",")[0],
    "textvqa": lambda row: "7" if "7" in str(row["answer"]) else str(row["answer"]).split("'")[-2],
    "vizwiz": lambda row: str(row["answers"]).split("'")[1],
    "docvqa": lambda row: str(row["answer"]).split("'")[1],
    "infovqa": lambda row: str(row["answer"]).strip("[]'"),
    "mm-vet": lambda row: str(row["answer"]).replace("<AND>", " or ").split("<OR>")[0],
    "llava-bench": lambda row: str(row["gpt4_ans"]),
    "mia-bench": lambda row: {2: "red red", 3: "", 1: "It is red."}[int(str(row["num_of_component"]))],
}


def row_name(name: str, row: Row) -> str:
    """Return a row's name in a dataset: its index, but for RefCOCO."""
    return TASKS[name].name({key: str(cell) for key, cell in row.items()})


def named(name: str) -> dict[str, Row]:
    """Return name -> row of a dataset's example."""
    return {row_name(name, row): row for row in EXAMPLES[name].rows}


def right_answer(name: str, row: Row) -> str:
    """Return a prediction of full credit."""
    return _READ.get(name, lambda row: str(row["answer"]))(row)


def answers(name: str) -> dict[str, dict[str, str]]:
    """Return phrase -> predictions of a dataset's example; in multiple choice, of the right letters and their texts."""
    rows = named(name)
    right = {index: right_answer(name, row) for index, row in rows.items()}
    found = {
        phrase: {index: phrase.format(answer) for index, answer in right.items()}
        for phrase in (PLAIN if TASKS[name].judge else PHRASES)
    }
    if TASKS[name].module == "image_mcq":
        texts = {index: str(row.get(right[index], right[index])) for index, row in rows.items()}
        found |= {
            phrase.replace("{}", "{text}"): {index: phrase.format(text) for index, text in texts.items()}
            for phrase in PHRASES
            if "{}" in phrase
        }
    return found


def measured(name: str) -> dict[str, Any]:
    """Return a dataset's official file (its md5), prompts (as a hash) and scores under the kit that is imported.

    A score is the headline, the number of unread rows, and the credits.
    """
    with tempfile.TemporaryDirectory() as folder:
        tsv = write(Path(folder) / f"{name}.tsv", EXAMPLES[name].rows)
        dataset = KitDataset(name, TASKS[name], tsv, DataOptions(Path(folder), judge="rule"))
        scores = {}
        for phrase, predictions in answers(name).items():
            asked = {request.index: predictions[request.index] for request in dataset.requests()}
            score = dataset.score(asked, Path(folder) / "scores")
            credits = " ".join(f"{credit:g}" for credit in score.per_item.values())
            scores[phrase] = f"{score.value:.6g}, {score.unparsed} unread: {credits}"
        prompts = stable_hash([request.wording for request in dataset.requests()])
        return {"data": OfficialFile(name, TASKS[name]).published()[1], "prompts": prompts, "scores": scores}


def stored() -> dict[str, dict[str, Any]]:
    """Return what was stored, by name, the tested version first."""
    files = sorted(FOLDER.glob("*.json"), key=lambda file: (file.stem != TESTED, file.stem))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def same_version(version: str) -> str | None:
    """Return the name under which a version's code is stored, whatever the version is called; None for none."""
    code = version.rpartition(" (code ")
    return next(
        (name for name, entry in stored().items() if entry["version"].rpartition(" (code ")[1:] == code[1:]), None
    )


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return the phrases of a dataset that two versions score differently, and "data", "prompts" if those differ."""
    worded = [phrase for phrase, score in ours["scores"].items() if score != theirs["scores"].get(phrase)]
    return [field for field in FIELDS if ours[field] != theirs.get(field)] + worded


def table() -> str:
    """Return the Markdown table of all stored versions against the tested one."""
    versions = stored()
    tested = versions.pop(TESTED)
    lines = [" | ".join(("| benchmark", TESTED, *versions)) + " |", "|---|---|" + "---|" * len(versions)]
    for name, entry in tested["datasets"].items():
        cells = []
        for other in versions.values():
            unlike = differences(entry, other["datasets"][name])
            equal = len(entry["scores"]) - len([phrase for phrase in unlike if phrase not in FIELDS])
            same = [f"{'other' if field in unlike else 'same'} {field}, " for field in FIELDS]
            cells.append(f"{''.join(same)}{equal} of {len(entry['scores'])} scores equal")
        lines.append(" | ".join((f"| `{name}`", f"{len(entry['scores'])} scores", *cells)) + " |")
    lines += ["", "Stored in a record as: " + "; ".join(entry["version"] for entry in stored().values()) + "."]
    return "\n".join(lines)


def main() -> None:
    """Store the imported kit's scores if that is wanted, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", metavar="NAME")
    if name := parser.parse_args().write:
        found = {"version": boot().version, "datasets": {dataset: measured(dataset) for dataset in EXAMPLES}}
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table())


if __name__ == "__main__":
    main()
