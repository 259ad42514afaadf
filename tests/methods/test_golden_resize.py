"""VTC-Bench's chain: images shrunk by the method itself, then the sizes that Qwen2-VL's two rules make of them.

The files also hold rows parted into groups; see `uniprune.results.hard_rows`.
"""

from __future__ import annotations

import io
import itertools
import math

import numpy as np
import PIL
import torch
from PIL import Image

from tests.helpers.golden_cases import Case, Methods, golden
from tests.helpers.records import dataset, run, score
from uniprune.modeling.input_forms import GridForms
from uniprune.pruning.input_stage import Size
from uniprune.results.comparison import RunComparison
from uniprune.results.hard_accuracy import HardRows
from uniprune.results.hard_rows import row_groups
from uniprune.results.records import MethodRecord

SIDE, LEAST, MOST = 28, 3136, 16384 * 784
"""The rule of the toolkit that opens images for the release: pixels per side of a token, and limits of pixels."""
PROCESSOR = GridForms(SIDE, LEAST, 2408448)
LATER = int(PIL.__version__.split(".")[0]) >= 13


def fetched(size: Size) -> Size:
    """The toolkit's size, whose sides are one token at least, before limits are applied."""
    sides = [max(SIDE, round(side / SIDE) * SIDE) for side in size]
    if LEAST <= math.prod(sides) <= MOST:
        return sides[0], sides[1]
    return GridForms(SIDE, LEAST, MOST).pixels(size)


def sizes(size: Size) -> tuple[Size, Size, int]:
    """Sizes after both rules, and the tokens."""
    first = fetched(size)
    return first, PROCESSOR.pixels(first), PROCESSOR.full(first)


@golden("llm_resize")
def test_resize(case: Case, methods: Methods) -> None:
    {"picture": picture, "sizes": table, "groups": groups}[case.kind](case, methods)


def picture(case: Case, methods: Methods) -> None:
    """Pixels after the shrink, and what `prepare` makes of them."""
    whole = Image.fromarray(case.arrays["picture"])
    method = methods("resize")(form="vtc-bench", ratio=1 / case.k**2)
    small = method.shrunk(whole)
    assert np.array_equal(np.asarray(small), case.arrays["small_pillow13" if LATER else "small"])
    image, form = method.prepare(whole, 1, PROCESSOR)
    assert form is None, "whatever the budget is"
    file = io.BytesIO()
    small.save(file, "JPEG", quality=75)
    assert image.tobytes() == Image.open(file).tobytes() != small.tobytes()
    height, width, _ = case.arrays["small"].shape
    assert sizes((height, width)) == (tuple(case.size_fetch.tolist()), tuple(case.size_final.tolist()), case.tokens)
    assert sizes((whole.height, whole.width))[2] == case.tokens_full


def table(case: Case, methods: Methods) -> None:
    """Sizes and tokens only."""
    for height, width, k, *numbers in case.table.tolist():
        first, final, tokens = sizes((height // k, width // k))
        assert [*first, *final, tokens, sizes((height, width))[2]] == numbers


def groups(case: Case, methods: Methods) -> None:
    """Rows that the shrunk image answers wrong, and right: as released, and as the paper says."""
    whole, resized, right, known = (
        dict(enumerate(case.arrays[name].tolist()))
        for name in ("original_right", "shrunk_right", "method_right", "method_has_row")
    )
    whole, resized = ({str(row): value for row, value in one.items()} for one in (whole, resized))
    answers = {str(row): value for row, value in right.items() if known[row]}
    released, paper = row_groups(resized, whole), row_groups(resized)
    for rows, want in (
        (released.hard, case.group_a),
        (released.easy, case.group_b),
        (paper.hard, case.paper_group_a),
        (paper.easy, case.paper_group_b),
    ):
        assert torch.tensor([int(row) for row in rows], dtype=torch.long).equal(want)
    of = {"none": whole, "input": resized, "pre-llm": answers}
    kinds = {kind: MethodRecord(name=kind, kind=kind, passed={}, resolved=[], stages=[], code="") for kind in of}
    hard = HardRows(RunComparison([run(kinds[kind], {"x": dataset(score(credits))}) for kind, credits in of.items()]))
    parts = hard.scores(hard.comparison.groups[-1], "x")
    for part, rows, accuracy in (("hard", case.group_a, case.accuracy_a), ("easy", case.group_b, case.accuracy_b)):
        assert parts[f"{part} known"].rows == len(rows)
        found = parts[f"{part} known"].accuracy
        assert abs((found.value if found else 0.0) - accuracy) < 1e-9, "no rows are 0 % there, and nothing here"
    assert [parts[part].rows for part in ("hard", "easy")] == [len(case.paper_group_a), len(case.paper_group_b)]
    assert parts["hard known"].unanswered == sum(not known[int(row)] for row in released.hard)


def test_resize_meets_budgets_with_the_nearest_aspect(methods: Methods) -> None:
    """Every size of up to 40 x 40 tokens, by brute force: none that contains the chosen one fits."""
    for size, keep in itertools.product([(480, 640), (640, 480), (100, 900), (336, 336)], [1, 2, 7, 64, 100, 128]):
        image = Image.new("RGB", size[::-1])
        resized, form = methods("resize")().prepare(image, keep, PROCESSOR)
        if keep >= PROCESSOR.full(size):
            assert resized is image
            continue
        fitting = [(h, w) for h, w in itertools.product(range(1, 130), repeat=2) if h * w <= keep]
        largest = [(h, w) for h, w in fitting if (h + 1) * w > keep and h * (w + 1) > keep]
        best = min(largest, key=lambda grid: (abs(math.log(grid[0] / grid[1] * size[1] / size[0])), -math.prod(grid)))
        assert (form.grid, form.tokens) == (best, math.prod(best))
        assert (resized.height, resized.width) == (best[0] * SIDE, best[1] * SIDE)
        assert resized.tobytes() == image.resize(resized.size, Image.Resampling.BICUBIC).tobytes()
