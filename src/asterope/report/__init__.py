"""Reports: what a run found as plain data, as tables for the terminal, and as one HTML file."""

from __future__ import annotations

from asterope.report.data import (
    Accuracy,
    AccuracyRow,
    Activity,
    Assumption,
    BreakEven,
    ChipFacts,
    CostRow,
    Estimate,
    LaunchGroup,
    LaunchReport,
    LineShare,
    MemoryFit,
    ModelFacts,
    PowerRoof,
    RunReport,
    Sample,
    Step,
    TracedLaunch,
    plain,
)
from asterope.report.estimate_page import estimate_page
from asterope.report.launch_page import launch_page
from asterope.report.launches import launch_tables
from asterope.report.mix_data import MixReport, MixRow, PlaceRow
from asterope.report.mix_page import mix_page
from asterope.report.mix_tables import mix_tables, mix_words
from asterope.report.numbers import parameters, size
from asterope.report.page import html_page
from asterope.report.task_scores import TaskScore, task_table
from asterope.report.terminal import (
    accuracy_table,
    assumption_table,
    break_even_table,
    cost_table,
    estimate_tables,
    kernel_table,
    memory_lines,
    new_table,
    notes_text,
    run_tables,
    step_table,
)
from asterope.report.verdict import report_dict, verdict
from asterope.report.write import (
    REPORT_BYTES,
    check_directory,
    check_file,
    write_page,
    write_report,
)

__all__ = [
    "REPORT_BYTES",
    "Accuracy",
    "AccuracyRow",
    "Activity",
    "Assumption",
    "BreakEven",
    "ChipFacts",
    "CostRow",
    "Estimate",
    "LaunchGroup",
    "LaunchReport",
    "LineShare",
    "MemoryFit",
    "MixReport",
    "MixRow",
    "ModelFacts",
    "PlaceRow",
    "PowerRoof",
    "RunReport",
    "Sample",
    "Step",
    "TaskScore",
    "TracedLaunch",
    "accuracy_table",
    "assumption_table",
    "break_even_table",
    "check_directory",
    "check_file",
    "cost_table",
    "estimate_page",
    "estimate_tables",
    "html_page",
    "kernel_table",
    "launch_page",
    "launch_tables",
    "memory_lines",
    "mix_page",
    "mix_tables",
    "mix_words",
    "new_table",
    "notes_text",
    "parameters",
    "plain",
    "report_dict",
    "run_tables",
    "size",
    "step_table",
    "task_table",
    "verdict",
    "write_page",
    "write_report",
]
