"""Scores of tuned models on tasks of lm-evaluation-harness."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from uniprune.errors import UserError
from uniprune.modeling.loading import DTYPES, place
from uniprune.tuning.settings import Settings
from uniprune.tuning.tuning_data import load_pretrained
from uniprune.utils.files import explain_write, write_atomically
from uniprune.utils.json_text import from_json, to_json

TaskScores = dict[str, dict[str, float | None]]
"""Task -> metric -> value or standard error, under the harness's names ("acc", "acc_stderr", "exact_match,strict");
None where the harness gave NaN or infinity."""


def task_scores(folder: Path, tuned: Path | None, settings: Settings, tokenizer: Any) -> TaskScores:
    """Return the scores on the settings' tasks; those stored in `folder` are not measured again.

    Args:
        folder: where `tasks.json` is stored.
        tuned: folder of the tuned LoRA adapter or model; None for the base model.
        settings: the tuning file, which names the tasks.
        tokenizer: of the model.

    Raises:
        UserError: the harness is not installed, does not know a task, or cannot get its data; or the stored
            scores cannot be read.
    """
    file = folder / "tasks.json"
    try:
        stored: dict[str, TaskScores] = from_json(file.read_bytes()) if file.exists() else {}
    except ValueError as error:
        raise UserError(f"{file} holds no stored scores ({error}); delete it: the tasks are measured again") from error
    key = "all" if settings.task_limit is None else f"first {settings.task_limit}"
    scores = stored.setdefault(key, {})
    if missing := [task for task in settings.tasks if task not in scores]:
        model = load_tuned(settings.model, tuned)
        for task in missing:
            scores[task] = measure(model, tokenizer, task, settings.task_folder, settings.task_limit)
            with explain_write(file):
                folder.mkdir(parents=True, exist_ok=True)
                write_atomically(file, to_json(stored, indent=1) + "\n")
    return {task: scores[task] for task in settings.tasks}


def load_tuned(source: str, tuned: Path | None) -> Any:
    """Load a model in the precision of training: a base model, with its LoRA adapter, or a wholly tuned model.

    Args:
        source: the base model.
        tuned: folder of the tuned LoRA adapter or model; None for the base model.
    """
    lora = tuned is not None and (tuned / "adapter_config.json").exists()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = DTYPES[place(device=device).dtype]
    model = load_pretrained("AutoModelForCausalLM", source if tuned is None or lora else str(tuned), dtype=dtype)
    if lora:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(tuned))
    return model.to(device).eval()


def measure(model: Any, tokenizer: Any, task: str, folder: str | None, limit: int | None) -> dict[str, float | None]:
    """Return the metrics of one task."""
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise UserError("tasks need lm-evaluation-harness: pip install -e '.[harness]'") from error

    try:
        output = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8),
            tasks=[task],
            task_manager=find_task_manager(task, folder),
            limit=limit,
            log_samples=False,
            bootstrap_iters=1000,
        )
    except (ConnectionError, FileNotFoundError) as error:
        raise UserError(f"the data of task {task!r} cannot be read: {' '.join(str(error).split())[:300]}") from error
    return numeric_metrics(output["results"], task)


def find_task_manager(task: str, folder: str | None) -> Any:
    """Return the harness's index that has the task: of `folder`, or else of all tasks, which takes seconds to build."""
    from lm_eval.tasks import TaskManager

    local = TaskManager(include_path=folder, include_defaults=False)
    manager = local if task in local.all_tasks else TaskManager(include_path=folder)
    if task not in manager.all_tasks:
        raise UserError(
            f"lm-evaluation-harness has no task {task!r}; `lm_eval ls tasks` lists its own, task_folder adds yours"
        )
    return manager


def numeric_metrics(results: Mapping[str, Mapping[str, Any]], task: str) -> dict[str, float | None]:
    """Return the numeric metrics of a task; None for one that is not finite."""
    numbers = {name.removesuffix(",none"): float(v) for name, v in results[task].items() if isinstance(v, int | float)}
    metrics = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    metrics.pop("sample_len", None)
    return metrics
