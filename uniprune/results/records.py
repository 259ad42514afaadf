"""Run records: setup and results of every run, its identity, and the folder it is stored in.

A *run* is one setup (model x method x settings) on some benchmarks. Its folder holds everything:

    results/<identity>/record.json               model and setup: a `RunRecord` without its benchmarks
    results/<identity>/<benchmark>.record.json   the benchmark's results: a `DatasetRecord`
    results/<identity>/<benchmark>.jsonl         its predictions, one per line (see uniprune/results/predictions.py)

Every file is about one thing, which it names, so that results of several machines can be copied into one folder.

The identity is a hash of `Setup` and of nothing else. `Setup` holds what determines the predictions: weights, image
processor, method with every resolved field and its source code, budget, seed, generation settings, precision,
attention kernel, kind of device and row limit. It does not hold what changes them by rounding only (the batch size,
which is halved when memory runs out, and shared image features: recorded per row and in `DatasetRecord.batching`, and
noted where they differ in low precision), what must not change them (folders, the model's name), what only describes
the host (versions, device name, git revision; kept in `DatasetRecord.environments`), nor the judge, which scores
predictions but does not make them. The rows of a benchmark are guarded by `DatasetRecord.data`, `.prompts` and
`.images`: rows of a changed data file are refused, not mixed in.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt

from uniprune.results.measurements import Strict, Timing, TokenLedger
from uniprune.utils.hashing import stable_hash

FORMAT: Literal[3] = 3
"""Version of the layout of records; raised whenever records of before can no longer be read."""
USUAL_FRAMES = 8
"""Frames that are shown of a video unless the user gives number or rate, as in VLMEvalKit's `…_8frame` settings."""
SLACK = 1e-9
"""Rounding errors of a sum that may leave a range."""


class MethodRecord(Strict):
    """A pruning method with everything that determines its decisions."""

    name: str
    """Registered name; parts of a composition are joined by "+"."""
    kind: str
    """Place in which it prunes: "none", "input", "pre-llm", "intra-llm" or "hybrid"."""
    passed: dict[str, Any]
    """Fields given by the user (`--layer`, `--set`), as validated."""
    resolved: list[dict[str, Any]]
    """Every field of every part after defaults and the budget protocol were applied."""
    stages: list[tuple[int, float]]
    """Pruning points in this model: decoder layer, and share kept of the tokens that enter it."""
    moved: list[tuple[int, int]] = Field(default_factory=list)
    """Pruning points that are not where the method has them, because the attention it reads does not exist there: the
    method's layer, and the one used."""
    code: str
    """Hash of the source files that determine the decisions, helpers and shared rules included."""

    @property
    def spelled_out(self) -> str:
        """Name and fields given by the user, in words."""
        passed = " ".join(f"{name}={value}" for name, value in self.passed.items())
        return self.name + f" with {passed}" * bool(passed)

    @property
    def move_note(self) -> str | None:
        """The pruning points that moved, in words; None without any."""
        if not self.moved:
            return None
        pairs = ", ".join(f"layer {used} instead of {own}" for own, used in self.moved)
        return f"prunes before {pairs}, because it reads attention, which other layers of this model do not have"


class ServingRecord(Strict):
    """A serving engine that answers in place of a model in the process of the run."""

    engine: str
    """Its name, e.g. "vllm"."""
    version: str
    """Its version. Position ids follow the method's field `positions`, as the engine itself names them."""


class Setup(Strict):
    """Everything that determines the predictions; its hash is the run's identity."""

    weights: str
    """Hub commit, or hash of the folder's weights, configuration and processor files."""
    processor: dict[str, Any]
    """Image processor class and the image settings of configs/models.yaml (pixel limits, tiles), also by benchmark."""
    images: Literal["paper", "checkpoint"] = "checkpoint"
    """Policy of image processing: that of the papers' harness, or the checkpoint's own."""
    method: MethodRecord
    """The pruning method."""
    ratio: float
    """Requested keep ratio."""
    protocol: Literal["site", "average"]
    """Reach of `ratio`: the pruning point, or the average over all decoder layers."""
    seed: int
    """Seed of the method's random choices."""
    decoding: str = "greedy"
    """Rule that chooses the next token."""
    max_new_tokens: int | None
    """Most new tokens of every row; null for each benchmark's own limit."""
    prompts: Literal["benchmark", "family"] = "benchmark"
    """Source of the prompts inside the chat template: the benchmark, or the model's family where it has rules."""
    question: Literal["seen", "hidden"] = "seen"
    """Knowledge of the method: the whole prompt, or nothing behind the images, which then come first."""
    image_decoding: Literal["kit", "viewer"] = "kit"
    """Conversion of images to RGB: VLMEvalKit's, or the one that image viewers show."""
    frames: int | None = USUAL_FRAMES
    """Frames that are shown of a video; null with `fps`."""
    fps: float | None = None
    """Frames per second that are shown of a video; null with `frames`."""
    limit: int | None
    """First rows of each benchmark that are run; null for all."""
    dtype: str
    """Floating-point type of the weights, e.g. "float32", and who quantised them: "bfloat16 bitsandbytes"."""
    attention: str
    """Attention kernel, e.g. "sdpa"."""
    tower_attention: str | None = None
    """Attention kernel of the vision tower, e.g. "varlen"; null for the same."""
    device: str
    """Kind of device, "cpu" or "cuda"."""
    serving: ServingRecord | None = None
    """Serving engine of the predictions; null for a model of transformers in the process of the run."""

    def identity(self) -> str:
        """Return the hash of all fields: 16 hex digits.

        A run in its own process has the identity it had before serving engines answered: stored ones are used again.
        """
        fields = self.model_dump(mode="json")
        return stable_hash(fields if self.serving else {name: fields[name] for name in fields if name != "serving"})


class ModelRecord(Strict):
    """The model by the names of its user."""

    name: str
    """Name given to `--model`."""
    source: str
    """Hub id or folder it was loaded from."""
    like: str | None = None
    """Entry of configs/models.yaml whose settings it takes."""
    unused: str | None = None
    """Remark about settings that entries of its family have and this run has not."""
    untried: str | None = None
    """Remark about parts that no test of its family runs on, such as another language model."""
    family: str
    """`config.model_type`, the registered name of its adapter."""
    layers: int
    """Decoder layers."""
    parameters: int | None = None
    """Parameters, vision tower included."""
    ignored: dict[str, Any] = Field(default_factory=dict)
    """Generation settings of the checkpoint that greedy decoding does not follow (sampling, penalties, …)."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Remarks that belong to all of its numbers."""
        return tuple(remark for remark in (self.unused, self.untried) if remark)


class Environment(Strict):
    """Software and machine that made predictions."""

    versions: dict[str, str]
    """Installed versions: python, uniprune, torch, transformers, …"""
    git: str | None
    """Commit of the checkout, with "+dirty" if it had uncommitted changes; null outside one."""
    device: str
    """Name of the accelerator or processor."""
    threads: int
    """CPU threads of torch."""


class ScoreRecord(Strict):
    """One benchmark's score, as `uniprune.evaluation.dataset.Score` describes it."""

    value: Annotated[float, Field(ge=-SLACK, le=100 + SLACK)]
    """Headline score, 0-100."""
    metric: str
    """Name of the headline score."""
    judge: str
    """"exact", "rule" or the judge model's name."""
    judge_note: str = ""
    """Remark on the verdicts of this judge, such as its measured agreement with the benchmark's own."""
    scorer: str = ""
    """Software that holds the scoring rules, with its version; empty for the benchmark's own code."""
    rows: NonNegativeInt
    """Rows scored."""
    unparsed: NonNegativeInt
    """Rows whose prediction could not be parsed; scored wrong."""
    interval: tuple[float, float] | None
    """95 % bootstrap interval over clusters of items, 0-100; null with too few clusters."""
    interval_of: Literal["headline", "mean credit"] = "headline"
    """Quantity of the interval: `value` wherever that follows from the items, else their mean credit."""
    per_item: dict[str, Annotated[float, Field(ge=-SLACK, le=1 + SLACK)]]
    """Credit of each item, 0-1."""
    clusters: dict[str, str] = Field(default_factory=dict)
    """Row -> cluster, such as its image; a row left out is a cluster of its own."""
    parts: dict[str, dict[str, tuple[float, float]]] = Field(default_factory=dict)
    """Sums of the headline over items, where it is not their mean credit; see `uniprune.evaluation.dataset.Score`."""
    details: dict[str, Any]
    """The scorer's own table."""


class DatasetRecord(Strict):
    """One benchmark within a run."""

    ability: str
    """Ability group."""
    suite: str
    """Suite the benchmark belongs to."""
    data: str
    """md5 of the data file."""
    prompts: str
    """Hash of the rows' indices, questions, token limits and wording; see `uniprune.evaluation.prompts`."""
    images: dict[str, Any] = Field(default_factory=dict)
    """Image settings of these rows that differ from the checkpoint's own."""
    rows: NonNegativeInt
    """Rows of this run."""
    whole: NonNegativeInt | None = None
    """Rows of a run without a limit; null where that was not stored."""
    answered: NonNegativeInt = 0
    """Of these, rows with a prediction."""
    refused: NonNegativeInt = 0
    """Of these, rows that could not be asked: the image cannot be decoded, the model's processor refuses it, …"""
    left_out: NonNegativeInt = 0
    """Of these, rows that are not scored: those refused, and those scored together with one."""
    faulty: dict[str, str] = Field(default_factory=dict)
    """Rows in no denominator, with the reason: those left out, then those of the file that are faulty themselves."""
    remarks: dict[str, int] = Field(default_factory=dict)
    """Answered rows with a remark, such as an answer cut at the token limit: `uniprune.results.remarks`."""
    size: NonNegativeInt = 0
    """Bytes of the file of predictions that this is about."""
    environments: list[Environment] = Field(default_factory=list)
    """Software and machines that made the predictions, in order of appearance."""
    days: list[str] = Field(default_factory=list)
    """Days on which predictions were stored, UTC, as "2026-03-31"."""
    batching: dict[str, int] = Field(default_factory=dict)
    """Batch size, with or without `--share-vision` -> rows answered so, last and smaller batches included."""
    timing: Timing | None = None
    """Time spans; null without predictions."""
    ledger: TokenLedger | None = None
    """Visual tokens; null without predictions on images."""
    score: ScoreRecord | None = None
    """The score; null until every row was run, and where all are left out."""

    @property
    def unscorable(self) -> bool:
        """True if all rows are left out, so that no score is possible."""
        return self.left_out == self.rows


class RunRecord(Strict):
    """Setup and results of one run."""

    format: Literal[3] = FORMAT
    """Version of this layout."""
    identity: str
    """Hash of `setup`; the folder's name."""
    model: ModelRecord
    """The model."""
    setup: Setup
    """Everything that determines the predictions."""
    known_as: tuple[str, ...] = ()
    """Names under which papers published exactly this method with these fields."""
    random: tuple[bool, ...] = ()
    """For every part of the method, whether it chooses at random, so that its seeds are repetitions."""
    datasets: dict[str, DatasetRecord] = Field(default_factory=dict)
    """Benchmarks by name; each is stored in a file of its own."""
