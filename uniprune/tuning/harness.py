"""Scores of tuned models on tasks of lm-evaluation-harness, by its names or in its format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from uniprune.errors import UserError
from uniprune.modeling.loading import DTYPES, place
from uniprune.tuning.material import fetch
from uniprune.tuning.settings import Settings
from uniprune.utils.files import explain_write, write_atomically

TaskScores = dict[str, dict[str, float]]
"""Task -> metric -> value or standard error, as the harness calls them ("acc", "acc_stderr", "exact_match,strict")."""


def task_scores(folder: Path, adapter: Path | None, settings: Settings, tokenizer: Any) -> TaskScores:
    """Scores on the settings' tasks; those stored in `folder` are not measured again.

    Args:
        folder: where `tasks.json` lies.
        adapter: the tuned model or adapter; None for the base model.
        settings: names the tasks.
        tokenizer: of the model.

    Raises:
        UserError: the harness is not installed, does not know a task, or cannot get its data.
    """
    file = folder / "tasks.json"
    stored: dict[str, TaskScores] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    key = "all" if settings.task_limit is None else f"first {settings.task_limit}"
    known = stored.setdefault(key, {})
    if missing := [task for task in settings.tasks if task not in known]:
        model = tuned(settings.model, adapter)
        for task in missing:
            known[task] = measure(model, tokenizer, task, settings.task_folder, settings.task_limit)
            with explain_write(file):
                folder.mkdir(parents=True, exist_ok=True)
                write_atomically(file, json.dumps(stored, indent=1) + "\n")
    return {task: known[task] for task in settings.tasks}


def tuned(source: str, adapter: Path | None) -> Any:
    """The base model with its adapter, or the model that was tuned as a whole, in the precision of training."""
    whole = adapter is not None and not (adapter / "adapter_config.json").exists()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = DTYPES[place(device=device).dtype]
    model = fetch("AutoModelForCausalLM", str(adapter) if whole else source, dtype=dtype)
    if adapter is not None and not whole:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter))
    return model.to(device).eval()


def measure(model: Any, tokenizer: Any, task: str, folder: str | None, limit: int | None) -> dict[str, float]:
    """One task's metrics."""
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise UserError("tasks need lm-evaluation-harness: pip install -e '.[harness]'") from error

    try:
        found = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8),
            tasks=[task],
            task_manager=manager_of(task, folder),
            limit=limit,
            log_samples=False,
            bootstrap_iters=1000,
        )
    except (ConnectionError, FileNotFoundError) as error:
        raise UserError(f"the data of task {task!r} cannot be read: {' '.join(str(error).split())[:300]}") from error
    return numbers(found["results"], task)


def manager_of(task: str, folder: str | None) -> Any:
    """The harness's index that holds the task: that of the own folder, or the whole one, which takes a while."""
    from lm_eval.tasks import TaskManager

    own = TaskManager(include_path=folder, include_defaults=False)
    manager = own if task in own.all_tasks else TaskManager(include_path=folder)
    if task not in manager.all_tasks:
        raise UserError(
            f"lm-evaluation-harness knows no task {task!r}; `lm_eval ls tasks` lists its own, task_folder adds yours"
        )
    return manager


def numbers(results: Mapping[str, Mapping[str, Any]], task: str) -> dict[str, float]:
    """The numeric metrics of a task."""
    own = {name.removesuffix(",none"): float(v) for name, v in results[task].items() if isinstance(v, int | float)}
    own.pop("sample_len", None)
    return own
