"""What was run and what came out: typed run records, their identity, and the folder they are stored in.

A *run* is one set-up (model x method x settings) over some benchmarks. Its folder holds everything:

    results/<identity>/record.json          this file's `RunRecord`, replaced atomically
    results/<identity>/<benchmark>.jsonl    one line per answered row, append-only (see uniprune/results/predictions.py)

The identity is a hash of `Setup` and of nothing else. `Setup` holds what determines the answers: weights, image
processor, method with every resolved field and its source code, budget, seed, generation settings, precision,
attention kernel, kind of device and row limit. It does not hold what must not change them (batch size, folders, the
name a model was called by), what only describes the host (versions, device name, git revision; kept in
`environments`), nor the judge, which scores answers but does not make them. Which rows a benchmark asks is guarded per
benchmark by `DatasetRecord.data` and `.prompts`: a changed data file is refused, not mixed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from uniprune.errors import UserError
from uniprune.utils.files import explain_write, write_atomically
from uniprune.utils.hashing import stable_hash


class Strict(BaseModel):
    """Base of all records: immutable, and unknown fields are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class MethodRecord(Strict):
    """A pruning method with everything that shapes its decisions."""

    name: str
    """Registered name; parts of a composition are joined by "+"."""
    kind: str
    """Where it acts: "none", "pre-llm", "intra-llm" or "hybrid"."""
    passed: dict[str, Any]
    """Fields given by the user (`--layer`, `--set`), as validated."""
    resolved: list[dict[str, Any]]
    """Every field of every part after defaults and the budget protocol were applied."""
    stages: list[tuple[int, float]]
    """Where it prunes in this model: decoder layer, and share kept of the tokens that arrive there."""
    code: str
    """sha256 of the source files that decide for the parts, helpers and shared rules included; first 16 hex digits."""


class Setup(Strict):
    """What determines the answers; its hash is the run's identity."""

    weights: str
    """Hub commit, or sha256 over the folder's weights, configuration and processor files."""
    processor: dict[str, Any]
    """Image processor class and the settings the configuration overrides (pixel limits)."""
    method: MethodRecord
    """The pruning method."""
    ratio: float
    """Requested keep ratio."""
    protocol: Literal["site", "average"]
    """Whether `ratio` holds at the pruning point or averaged over all decoder layers."""
    seed: int
    """Seed of the method's random choices."""
    decoding: str = "greedy"
    """How the next token is chosen."""
    max_new_tokens: int | None
    """Longest answer for every row; null leaves it to each benchmark."""
    prompts: Literal["benchmark", "family"] = "benchmark"
    """Who words the prompts inside the chat template: the benchmark, or the model's family where it has rules."""
    limit: int | None
    """Rows asked per benchmark, from the start; null asks all."""
    dtype: str
    """Floating-point type of the weights, e.g. "float32"."""
    attention: str
    """Attention kernel, e.g. "sdpa"."""
    device: str
    """Kind of device, "cpu" or "cuda"."""

    def identity(self) -> str:
        """First 16 hex digits of the sha256 of the canonical JSON form."""
        return stable_hash(self.model_dump(mode="json"))


class ModelRecord(Strict):
    """The model as its user knows it."""

    name: str
    """What `--model` said."""
    source: str
    """Hub id or folder it was loaded from."""
    family: str
    """`config.model_type`, the name its family is registered under."""
    layers: int
    """Decoder layers."""
    parameters: int | None = None
    """Parameters, vision tower included."""


class Environment(Strict):
    """Software and machine that answered rows."""

    versions: dict[str, str]
    """Installed versions of what takes part: python, uniprune, torch, transformers, ms-vlmeval, …"""
    git: str | None
    """Commit of the checkout, with "+dirty" when it had uncommitted changes; null outside one."""
    device: str
    """Name of the accelerator or processor."""
    threads: int
    """CPU threads torch used."""


class Quantity(Strict):
    """Distribution of one timed span over rows, in milliseconds per row."""

    median: float
    """Half of the rows were faster."""
    iqr: float
    """Distance between the quartiles."""
    total: float
    """Sum over all rows, in seconds."""


class Timing(Strict):
    """Disjoint spans of answering, without warm-up. A batch's spans are shared equally by its rows."""

    vision: Quantity
    """Vision tower."""
    projector: Quantity
    """Projector between tower and language model."""
    method: Quantity
    """Everything the method causes: scores, selection, gathering."""
    prefill: Quantity
    """Language model over the prompt."""
    decode: Quantity
    """Language model over the answer."""
    total: Quantity
    """Whole call of `generate`."""
    ttft: Quantity | None = None
    """Time to first token: what a row waits for it, so the whole batch's time, not a share. Null in older records."""
    tpot: Quantity | None = None
    """Time per output token after the first, of the whole batch. Null when no answer has a second token."""
    peak_mib: float | None = None
    """Most GPU memory in use during any batch, in MiB; null on the CPU."""
    new_tokens: float
    """Mean answer length in tokens, end of answer included."""
    batch_size: float
    """Mean rows per batch."""
    rows: int
    """Rows measured."""


class Flops(Strict):
    """Floating-point operations of one prompt's prefill; see `uniprune.modeling.flops` for what is counted."""

    vision: float
    """Vision tower."""
    projector: float
    """Projector."""
    llm: float
    """Language model, its head on the last token only."""

    @property
    def total(self) -> float:
        """All three."""
        return self.vision + self.projector + self.llm


class TokenLedger(Strict):
    """Visual tokens, measured from the shapes that entered each decoder layer. Means over rows with images."""

    layers: list[float]
    """Visual tokens entering each layer."""
    average: float
    """Mean over layers."""
    requested: float | None
    """What the budget asked that average to be; null for adaptive methods."""
    flagged: bool
    """Whether any row's average is off by more than one token; never for adaptive methods."""
    adaptive: bool = False
    """Whether the method chooses its own number of tokens, so that the keep ratio is nominal."""
    initial: float | None = None
    """Visual tokens before any pruning. Null, as the fields below, in records of older versions."""
    text: float | None = None
    """Text tokens."""
    flops: Flops | None = None
    """Operations of the prefill."""
    kv_bytes: float | None = None
    """Keys and values in the cache after the prefill, padding not counted; also null for quantised caches."""


class ScoreRecord(Strict):
    """One benchmark's score, as `uniprune.evaluation.dataset.Score` describes it."""

    value: float
    """Headline score, 0-100."""
    metric: str
    """What the headline score is."""
    judge: str
    """"exact", "rule" or the judge model's name."""
    rows: int
    """Rows scored."""
    unparsed: int
    """Rows whose answer could not be read; scored wrong."""
    interval: tuple[float, float] | None
    """95 % bootstrap interval over clusters of items, 0-100; null below two clusters."""
    interval_of: Literal["headline", "mean credit"] = "headline"
    """What the interval is of: of `value` wherever it follows from the items, else of their mean credit."""
    per_item: dict[str, float]
    """Credit of each item, 0-1."""
    clusters: dict[str, str] = {}
    """What a row shares with others, such as a picture; rows left out stand alone."""
    parts: dict[str, dict[str, tuple[float, float]]] = {}
    """How the headline follows from items where it is not their mean credit; see `uniprune.evaluation.dataset.Score`."""
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
    """Hash of the rows' indices, questions and answer lengths, and of a family's words for them."""
    rows: int
    """Rows to ask in this run."""
    answered: int = 0
    """Rows of these with a stored prediction."""
    faulty: dict[str, str] = {}
    """Rows of the file that cannot be asked (damaged image, …), with the reason."""
    timing: Timing | None = None
    """Spans; null until rows were answered."""
    ledger: TokenLedger | None = None
    """Visual tokens; null until rows with an image were answered."""
    score: ScoreRecord | None = None
    """Null until every row was asked."""


class RunRecord(Strict):
    """Everything about one run."""

    format: Literal[1] = 1
    """Version of this layout."""
    identity: str
    """Hash of `setup`; the folder's name."""
    model: ModelRecord
    """The model."""
    setup: Setup
    """What determines the answers."""
    random: tuple[bool, ...] = ()
    """For every part of the method, whether it chooses by chance: its seeds are repetitions."""
    environments: list[Environment] = []
    """Everything that answered rows of this run, in order of appearance."""
    datasets: dict[str, DatasetRecord] = {}
    """Benchmarks by name."""


class Store:
    """A folder of runs.

    Args:
        root: the `--output` folder; created on first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, identity: str) -> Path:
        """The run's folder, created if missing. Raises UserError when it cannot be."""
        path = self.root / identity
        with explain_write(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def predictions(self, identity: str, dataset: str) -> Path:
        """File of one benchmark's predictions."""
        return self.folder(identity) / f"{dataset}.jsonl"

    def read(self, identity: str) -> RunRecord | None:
        """The stored record, or None. Raises UserError when the file is damaged."""
        path = self.root / identity / "record.json"
        try:
            return RunRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, OSError) as error:
            reason = str(error).split("\n", 1)[0]
            raise UserError(
                f"{path} is not a run record of this version ({reason}); move it away: the predictions beside it are "
                "kept, and running the same command again writes a new record from them"
            ) from error

    def records(self) -> Iterator[RunRecord]:
        """All stored records, by identity."""
        for path in sorted(self.root.glob("*/record.json")):
            if (record := self.read(path.parent.name)) is not None:
                yield record

    def write(self, record: RunRecord) -> None:
        """Replace the record atomically: readers see the old one or the new one, never a part."""
        path = self.folder(record.identity) / "record.json"
        with explain_write(path):
            write_atomically(path, record.model_dump_json(indent=1) + "\n")

    def update(self, new: RunRecord, dataset: str, entry: DatasetRecord, *environments: Environment) -> RunRecord:
        """Store one benchmark's entry and where it was answered, keeping what others stored of the run meanwhile."""
        lock = self.folder(new.identity) / "record.lock"
        with explain_write(lock), FileLock(lock):
            old = self.read(new.identity) or new
            seen = list(old.environments)
            seen += [one for i, one in enumerate(environments) if one not in (*seen, *environments[:i])]
            record = old.model_copy(
                update={
                    "model": new.model,
                    "random": new.random,
                    "environments": seen,
                    "datasets": {**old.datasets, dataset: entry},
                }
            )
            self.write(record)
        return record
