"""Items of the page's browser, as JSON: question, image, and every run's prediction and credit."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from uniprune.evaluation.collection import DatasetCollection
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.image_decoding import as_rgb
from uniprune.reports.item_pairs import read_requests
from uniprune.results.records import RunRecord
from uniprune.utils.json_text import from_json

Answers = Callable[[str, str], Path]
"""Returns the file of a run's predictions on a benchmark, by identity and name."""

SIDE, QUALITY = 360, 72
"""Longest side of an image on the page in pixels, and its quality as JPEG."""
_INDEX = re.compile(rb'\{"index": ("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True)
class ItemOptions:
    """Items to put on the page.

    Attributes:
        count: most items per benchmark, those on which runs differ most first; 0 for none.
        data_dir: folder of the benchmarks' files, which have questions and images.
        answers: finds the predictions.
    """

    count: int
    data_dir: Path
    answers: Answers


def items(records: Sequence[RunRecord], options: ItemOptions) -> dict[str, Any]:
    """Return benchmark -> its runs and items; a benchmark that no run has scored is left out."""
    names = dict.fromkeys(name for run in records for name, entry in run.datasets.items() if entry.score)
    data = DatasetCollection(options.data_dir, judge="rule")  # nothing is judged, but judged benchmarks need one
    return {name: _benchmark(name, records, data, options) for name in sorted(names)} if options.count else {}


def _benchmark(
    name: str, records: Sequence[RunRecord], data: DatasetCollection, options: ItemOptions
) -> dict[str, Any]:
    """Return one benchmark of the runs that have scored the most common data file."""
    scored = [run for run in records if name in run.datasets and run.datasets[name].score]
    files = Counter(run.datasets[name].data for run in scored)
    [(file, count)] = files.most_common(1)
    runs = [run for run in scored if run.datasets[name].data == file]
    credits = [score.per_item for run in runs if (score := run.datasets[name].score)]
    chosen = _most_different(credits)[: options.count]
    requests, missing = read_requests(data, name, file)
    notes = [missing] * bool(missing)
    if others := len(scored) - count:
        notes.append(f"{others} runs have answered another data file and are not shown.")
    predictions = [_predictions(options.answers(run.identity, name), chosen) for run in runs]
    found = []
    for index in chosen:
        item = {
            "index": index,
            "credits": [known.get(index) for known in credits],
            "predictions": [_text(lines.get(index)) for lines in predictions],
            "kept": {
                str(i): kept for i, lines in enumerate(predictions) if (kept := lines.get(index, {}).get("selections"))
            },
        }
        if request := requests.get(index):
            item |= shown(request)
        found.append(item)
    total = len(set().union(*credits))
    return {"runs": [run.identity for run in runs], "total": total, "items": found, "notes": notes}


def _most_different(credits: Sequence[Mapping[str, float]]) -> list[str]:
    """Return all items, those on which the runs' credits differ most first, else in the order of the file."""
    order = dict.fromkeys(index for known in credits for index in known)

    def spread(index: str) -> float:
        values = [known[index] for known in credits if index in known]
        mean = sum(values) / len(values)
        return float(sum((value - mean) ** 2 for value in values) / len(values))

    return sorted(order, key=lambda index: -round(spread(index), 9))


def shown(request: Request) -> dict[str, Any]:
    """Return question and images of a row, of a video its first frame, and why an image is missing."""
    images: list[str] = []
    found = {"question": request.question, "answer": request.answer, "images": images, "videos": request.videos}
    try:
        for part in request.load():
            frames = part.video.read([0]) if part.video else []
            images += map(encoded, [part.image] if part.image else frames)
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        found["problem"] = f"An image cannot be shown: {type(error).__name__}: {error}"
    return found


def encoded(image: Image.Image) -> str:
    """Return an image, made smaller, as the data URI of a JPEG."""
    small, _ = as_rgb(image)
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _text(line: Mapping[str, Any] | None) -> str | None:
    """Return a prediction, or why there is none."""
    if line is None:
        return None
    return line["prediction"] if line.get("error") is None else f"(left out: {line['error']})"


def _predictions(path: Path, wanted: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return row -> line of some rows; other lines, of which there may be thousands, are not decoded."""
    found: dict[str, dict[str, Any]] = {}
    for line in _lines(path):
        match = _INDEX.match(line)
        if match and (index := json.loads(match[1])) in wanted and line.endswith(b"\n"):
            found[index] = from_json(line)
    return found


def _lines(path: Path) -> Iterable[bytes]:
    """Return the lines of a file; none without it."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        return file.readlines()
