"""How many chips share a model, and its sequences."""

from __future__ import annotations

from dataclasses import dataclass

from asterope.errors import ConfigError

__all__ = ["Sharing"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharing:
    """How chips share a model: `tensor` of them each layer, `expert` of them the experts.

    Where more chips share the experts, groups of `tensor` have sequences of their own.

    Raises: ConfigError if chips that share experts are no whole groups.
    """

    tensor: int = 1
    expert: int = 1

    def __post_init__(self) -> None:
        if self.tensor < 1 or self.expert < 1 or (self.expert > 1 and self.expert % self.tensor):
            raise ConfigError(
                f"{self.expert} chips are no whole groups of {self.tensor}",
                where="expert_parallel",
                hint=f"use a multiple of tensor_parallel: {2 * self.tensor}",
            )

    @property
    def chips(self) -> int:
        """All chips."""
        return max(self.tensor, self.expert)

    def sequences(self, batch: int) -> int:
        """Return how many sequences of a batch the busiest group has."""
        return -(-batch * self.tensor // self.chips)
