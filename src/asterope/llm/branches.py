"""Which models can have low-rank branches."""

from __future__ import annotations

from asterope.errors import UnsupportedError
from asterope.llm.config import ModelConfig
from asterope.quant import Mix

__all__ = ["check_branches"]


def check_branches(config: ModelConfig, mix: Mix) -> None:
    """Check that a mix puts no low-rank branch beside experts.

    Raises: UnsupportedError.
    """
    branched = next((s for s in mix.counts if s is not None and s.rank is not None), None)
    if branched is not None and config.experts is not None:
        raise UnsupportedError(
            "experts have no low-rank branches", where=f"format {branched.name}",
            hint=f"use {branched.without_branch.name}, by awq_gptq",
        )  # fmt: skip
