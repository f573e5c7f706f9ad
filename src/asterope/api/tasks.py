"""Score a model and its quantized forms on tasks of lm-evaluation-harness, from local files."""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asterope.api.language_model import LanguageModel
from asterope.api.optional import optional_package
from asterope.api.progress import Progress, silent
from asterope.errors import ConfigError
from asterope.report import TaskScore

__all__ = ["score_tasks"]

_RESAMPLES = 1000
"""Draws that the errors of metrics without a formula for them come from."""


def score_tasks(
    models: Mapping[str, LanguageModel], tasks: Sequence[str], *, limit: int | None = None,
    num_fewshot: int | None = None, progress: Progress = silent,
) -> tuple[TaskScore, ...]:  # fmt: skip
    """Score models on tasks: YAML files of the harness, or names of tasks that it has.

    Nothing is downloaded: data are the files that a task's `dataset_kwargs` names, relative to the
    current directory, or in the cache of `datasets`. `limit` takes so many samples of each task.
    A task's file may call Python functions beside it, which then run: use those you trust.

    Raises: ConfigError without lm-eval, for a task that there is not or that cannot be read, or a
    model without a tokenizer.
    """
    for name, model in models.items():
        if model.tokenizer is None:
            raise ConfigError("has no tokenizer, so it has no tasks", where=name)
    harness, manager = _harness(tasks)
    from asterope.api.harness import HarnessModel

    scores: list[TaskScore] = []
    for name, model in models.items():
        report = functools.partial(progress, f"tasks, {name}")
        found = _evaluated(
            harness, model=HarnessModel(model, report), tasks=list(tasks), task_manager=manager,
            limit=limit, num_fewshot=num_fewshot,
        )  # fmt: skip
        scores += _scores(name, found)
    return tuple(scores)


def _harness(tasks: Sequence[str]) -> tuple[Any, Any]:
    """Return the harness and its index of tasks.

    Raises: ConfigError if it is not installed, or a file or name does not exist.
    """
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ.setdefault(name, "1")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    described = {"called": "lm-evaluation-harness", "purpose": "scoring tasks", "extra": "tasks"}
    harness = optional_package("lm_eval", **described)
    indexed = optional_package("lm_eval.tasks", **described)
    files = [task for task in tasks if _is_file(task)]
    manager = indexed.TaskManager(include_defaults=len(files) < len(tasks))
    for task in tasks:
        if task in files and not Path(task).is_file():
            raise ConfigError("there is no such file", where=task)
        if task not in files and task not in manager.all_tasks:
            raise ConfigError(
                "is no task of the harness", where=f"task {task!r}",
                hint="give the path of a YAML file, or a name that `lm-eval ls tasks` lists",
            )  # fmt: skip
    return harness, manager


def _is_file(task: str) -> bool:
    return task.endswith((".yaml", ".yml")) or os.sep in task


def _evaluated(harness: Any, **what: Any) -> Mapping[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Mapping[str, Any] | None = harness.simple_evaluate(
                bootstrap_iters=_RESAMPLES, log_samples=False, **what
            )
    except ConfigError:
        raise
    except Exception as error:  # of whatever kind: files of tasks can be wrong in any way
        nameless = (
            "a task has no samples" if isinstance(error, StopIteration) else type(error).__name__
        )
        first = (str(error).strip() or nameless).splitlines()[0]
        raise ConfigError(
            f"the harness says: {first}",
            where=f"tasks {', '.join(what['tasks'])}",
            hint="data files are looked for from the current directory; nothing is downloaded",
        ) from error
    assert found is not None
    return found


def _scores(name: str, found: Mapping[str, Any]) -> list[TaskScore]:
    """Return the metrics of a model's results, in the harness' order."""
    scores = []
    for task, results in found["results"].items():
        for key, value in results.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            error = results.get(f"{metric}_stderr,{filtered}")
            scores.append(TaskScore(
                model=name, task=task, value=float(value),
                metric=metric if filtered == "none" else f"{metric} ({filtered})",
                stderr=float(error) if isinstance(error, (int, float)) else None,
                num_samples=int(found.get("n-samples", {}).get(task, {}).get("effective", 0)),
            ))  # fmt: skip
    return scores
