"""Pages of measured tables of the mini suite: what each shows, and the commands that measure it."""

from __future__ import annotations

from dataclasses import dataclass

from .rows import ABILITIES, INTRA, PRE

MODELS = ("tiny-llava", "tiny-internvl", "tiny-qwen2.5-vl", "tiny-qwen3-vl")
COLUMNS = ("method", "ratio", "visual tokens", *ABILITIES)
SINGLE = (
    "cdpruner dart divprune fastv fitprune fopru gprune mustdrop pooling prumerge prumerge+ pyramiddrop sparsevlm "
    "sparsevlm-v1 sparsevlm-v2 visionzip vispruner vtw zspaprune"
)
NEWER = (
    "cdpruner-blocks dart-embeddings evs fastvid flashvid hiprune hired holov mmtok priortr prunesid resize "
    "scope transprune v2drop vidcom2 visiontrim vscan"
)
"""Methods that were added later, and measured on one model."""
TOWER = "random-tower tome"
"""Methods inside the tower, which share no image features."""
FREE = "pixelprune"
"""Method that chooses how many patches stay, as only a tower that takes one sequence allows."""
UNMEASURED = {"trim": "needs the text tower of CLIP, which no tiny model has"}
"""Method -> reason why no page has it."""
COMPOSED = (
    "divprune+fastv divprune+random-intra gprune+fastv gprune+random-intra random-pre+fastv random-pre+random-intra"
)


@dataclass(frozen=True)
class Page:
    """One table, as a CSV and as a Markdown page.

    Attributes:
        name: of both files.
        models: in the order of the page.
        methods: in table order, after "none".
        ratios: that the table shows.
        seeds: of random pruning; if several, each method is compared with their mean.
        half_width: column of the number after ±.
        text: Markdown before the tables.
    """

    name: str
    models: tuple[str, ...]
    methods: tuple[str, ...]
    ratios: tuple[float, ...]
    seeds: tuple[int, ...]
    half_width: str
    text: str

    @property
    def compared(self) -> bool:
        """Return whether methods are compared with random pruning."""
        return len(self.seeds) > 1

    @property
    def columns(self) -> list[str]:
        """Columns of the CSV."""
        return ["model", *COLUMNS, "average", self.half_width, *["random", "low", "high"] * self.compared]


CURVES = Page(
    name="mini-suite",
    models=MODELS,
    methods=(PRE, INTRA, "divprune", "fastv"),
    ratios=(0.5, 0.333, 0.222, 0.111),
    seeds=(0,),
    half_width="half-width",
    text="""# The mini suite, measured

Scores of four tiny models on the ten generated datasets, un-pruned and pruned. **This shows
that the harness works, not how methods rank on real models**: images of 96 x 96 pixels with a few shapes and
characters, models of 1.2 to 1.6 million parameters that were trained with background tokens dropped more often than
others, so they forgive whatever keeps the foreground. VLMEvalKit makes the prompts and the scores; MathVista,
Math-Vision and MIA-Bench use the rule judge.

Measured by

```sh
for model in tiny-llava tiny-internvl tiny-qwen2.5-vl tiny-qwen3-vl; do
  python run.py --model $model --method none random-pre random-intra divprune fastv \\
    --ratio 0.5 0.333 0.222 0.111 --batch-size 60 --share-vision 4 \\
    --output results/mini-suite
done
python -m uniprune.benchmarks.mini.report --results results/mini-suite
```

Columns are the six ability groups (mean headline score of their datasets, 0–100) and the average over the ten datasets.
± is half the width of the 95 % bootstrap interval of the average credit per item, resampled within each dataset
(accuracy stands in for POPE's F1 and HallusionBench's three accuracies there). Random methods: one seed.
""",
)
READING = """\
* *visual tokens*: mean over decoder layers of what entered them, measured. The ratio holds at the pruning point, so
  methods inside the language model see more tokens than methods before it, and schedules differ again.
* *average* ± half the width of its 95 % bootstrap interval; for random pruning ± the standard deviation over
  5 seeds.
* *minus random*: difference of the mean credit per item to random pruning at the same ratio (5 seeds, `random-pre` for
  methods that act before the language model, `random-intra` for all others), items paired, with its 95 % bootstrap
  interval; **bold** where the interval excludes 0. Where that random pruning kept another number of visual tokens (by
  more than one token and 2 %), there is no difference but its number. Nothing was tuned for this table.
"""
METHODS = Page(
    name="mini-suite-methods",
    models=MODELS[:3],
    methods=(PRE, INTRA, *SINGLE.split(), *COMPOSED.split()),
    ratios=(0.333, 0.222, 0.111),
    seeds=(0, 1, 2, 3, 4),
    half_width="spread",
    text=f"""# Every method on the mini suite

Registered methods, and every composition of UniPruneBench's two-stage table, on three of the tiny models (not on
tiny-qwen3-vl). Methods that were added later have [a page of their own](mini-suite-newer.md), on one model.
As with the [curves](mini-suite.md), **this shows that every method runs end to end and loses accuracy as it prunes, not
how methods rank on real models**.

Measured by

```sh
for model in tiny-llava tiny-internvl tiny-qwen2.5-vl; do
  python run.py --model $model --ratio 0.333 0.222 0.111 --batch-size 60 --share-vision 4 \\
    --output results/mini-suite --method none random-pre random-intra \\
    {SINGLE} \\
    {COMPOSED}
  for seed in 1 2 3 4; do
    python run.py --model $model --method random-pre random-intra --ratio 0.333 0.222 0.111 \\
      --seed $seed --batch-size 60 --share-vision 4 --output results/mini-suite
  done
done
python -m uniprune.benchmarks.mini.report --methods --results results/mini-suite
```

To add a method, add its name to `SINGLE` in `benchmarks/mini/pages.py`, run `none`, `random-pre`,
`random-intra` and it by the same commands (what `--output` holds already is not run again), and add
`--method NAME` to the last one: the other rows stay, if the un-pruned model and random pruning still have theirs.

{READING}""",
)


NEWER_PAGE = Page(
    name="mini-suite-newer",
    models=(MODELS[0], MODELS[2]),
    methods=(PRE, INTRA, *NEWER.split(), *TOWER.split(), FREE),
    ratios=(0.333, 0.222, 0.111),
    seeds=(0, 1, 2, 3, 4),
    half_width="spread",
    text=f"""# Newer methods on the mini suite

Methods that were added after [the page of every method](mini-suite-methods.md), on tiny-llava, with the un-pruned model
and random pruning of the same runs; pixelprune, which LLaVA's tower cannot run, on tiny-qwen2.5-vl:
of these textured images, no pixel of which is equal to a prediction, it drops nothing.
Not here: {"; ".join(f"{name}, which {why}" for name, why in UNMEASURED.items())}.
Methods for videos (evs, fastvid, flashvid, vidcom2) see one frame here; of a single frame evs keeps everything.
`resize` shrinks the image, `random-tower` and `tome` act inside the vision tower: they leave fewer tokens to the whole
language model, as methods before it do. **This shows that every method runs end to end and what it loses as it prunes,
not how methods rank on real models**: images are 96 x 96 pixels of plain background with a few shapes.

Measured by

```sh
python run.py --model tiny-llava --ratio 0.333 0.222 0.111 --batch-size 60 --share-vision 4 \\
  --output results/mini-suite --method none random-pre random-intra \\
  {NEWER}
python run.py --model tiny-llava --ratio 0.333 0.222 0.111 --batch-size 60 \\
  --output results/mini-suite --method {TOWER}
for seed in 1 2 3 4; do
  python run.py --model tiny-llava --method random-pre random-intra --ratio 0.333 0.222 0.111 \\
    --seed $seed --batch-size 60 --share-vision 4 --output results/mini-suite
done
python run.py --model tiny-qwen2.5-vl --ratio 0.333 0.222 0.111 --batch-size 60 \\
  --output results/mini-suite --method none {FREE}
for seed in 0 1 2 3 4; do
  python run.py --model tiny-qwen2.5-vl --method random-pre --ratio 0.333 0.222 0.111 \\
    --seed $seed --batch-size 60 --share-vision 4 --output results/mini-suite
done
python -m uniprune.benchmarks.mini.report --newer --results results/mini-suite
```

{READING}""",
)
