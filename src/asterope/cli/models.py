"""`asterope models`."""

from __future__ import annotations

from typing import Any

from asterope import llm
from asterope.cli.options import AsJson
from asterope.cli.output import show, write_json
from asterope.errors import AsteropeError
from asterope.report import new_table, parameters

__all__ = ["list_models"]


def list_models(as_json: AsJson = False) -> None:
    """List the published configurations that `simulate` and `cost` know by name.

    Example: `asterope models`
    """
    rows = [_row(name) for name in llm.published_names()]
    if as_json:
        write_json(rows)
        return
    table = new_table(
        "", "name", "type", ">parameters", ">active", ">layers", ">hidden", ">context",
        "can be simulated",
    )  # fmt: skip
    for row in rows:
        table.add_row(
            row["name"], row["type"], parameters(row["parameters"]),
            parameters(row["active_parameters"]),
            str(row["layers"]), f"{row['hidden_size']:,}", f"{row['context']:,}",
            "yes" if row["can_be_simulated"] else f"not yet: {row['reason']}",
        )  # fmt: skip
    show([table])


def _row(name: str) -> dict[str, Any]:
    config = llm.published_config(name)
    about = llm.published_model(name)
    counted = llm.count_parameters(config)
    reason = ""
    try:
        llm.ModelConfig.from_dict(config, where=name)
    except AsteropeError as error:
        reason = error.what
    return {
        "name": name,
        "aliases": list(about.aliases),
        "type": config["model_type"],
        "parameters": counted.total,
        "active_parameters": counted.active,
        "layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
        "context": config.get("max_position_embeddings", 0),
        "can_be_simulated": not reason,
        "reason": reason,
        "source": about.source,
    }
