"""What models make of tasks: one metric of one task for one model, and a table of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from asterope.report.numbers import amount
from asterope.report.terminal import new_table

__all__ = ["TaskScore", "task_table"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskScore:
    """A metric of a task for one model; `stderr` is None where the harness has none."""

    model: str
    task: str
    metric: str
    value: float
    stderr: float | None
    num_samples: int


def task_table(scores: Sequence[TaskScore]) -> Table:
    """Return tasks and metrics down, models across, each value with its standard error."""
    models = list(dict.fromkeys(score.model for score in scores))
    table = new_table("Tasks", "task", "metric", ">samples", *(f">{name}" for name in models))
    found = {(score.task, score.metric, score.model): score for score in scores}
    for task, metric in dict.fromkeys((score.task, score.metric) for score in scores):
        row = [found.get((task, metric, model)) for model in models]
        samples = max(score.num_samples for score in row if score)
        table.add_row(task, metric, f"{samples:,}", *map(_cell, row))
    return table


def _cell(score: TaskScore | None) -> str:
    if score is None:
        return ""
    error = "" if score.stderr is None else f" ± {amount(score.stderr, 2)}"
    return f"{amount(score.value, 4)}{error}"
