"""Where training is, on disk: weights, what the optimizer knows, and the best so far."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from asterope.errors import OutputError
from asterope.native import write_atomically

__all__ = ["TrainingState"]

_KEY, _RECORD = "made_from", "record"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class TrainingState:
    """The best weights so far and the losses; with a file, all that training goes on from.

    The file is safetensors: weights, best weights and AdamW's moments by name, the step and the
    losses as JSON beside them. What no gradient has moved has no moments. `made_from` says all that
    the result depends on: a file that says something else is written anew.
    """

    def __init__(self, path: Path | None = None, made_from: str = "") -> None:
        self.path, self.made_from = path, made_from
        self.losses: dict[int, float] = {}
        self._best: dict[str, torch.Tensor] = {}

    def restore(self, weights: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> int:
        """Put weights and optimizer to where the file says they are; return the step, 0 without."""
        found = self._read()
        if found is None:
            return 0
        step, tensors = found
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(tensors[f"weight.{name}"])
                self._best[name] = tensors[f"best.{name}"]
                if f"step.{name}" in tensors:
                    optimizer.state[weight] = {
                        key: tensors[f"{key}.{name}"] for key in _MOMENTS
                    }  # fmt: skip
        return step

    def judge(self, step: int, loss: float, weights: Mapping[str, torch.Tensor]) -> None:
        """Note the held-out loss after a step, and the weights if it is the least so far."""
        if all(loss < other for other in self.losses.values()):
            self._best = {name: weight.detach().clone() for name, weight in weights.items()}
        self.losses[step] = loss

    def keep(
        self, step: int, weights: Mapping[str, torch.Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> None:  # fmt: skip
        """Write the file, whole or not at all.

        Raises: OutputError if it cannot be written.
        """
        if self.path is None:
            return
        tensors = {f"best.{name}": tensor for name, tensor in self._best.items()}
        for name, weight in weights.items():
            tensors[f"weight.{name}"] = weight.detach()
            # An expert that no token has reached has no moments.
            if moments := optimizer.state.get(weight):
                tensors |= {f"{key}.{name}": moments[key] for key in _MOMENTS}
        record = json.dumps({"step": step, "losses": list(self.losses.items())})
        try:
            write_atomically(self.path, save(tensors, {_KEY: self.made_from, _RECORD: record}))
        except OSError as error:
            raise OutputError(f"cannot write: {error.strerror}", where=str(self.path)) from None

    def take_best(self, weights: Mapping[str, torch.Tensor]) -> int:
        """Give the weights the values of least held-out loss; return the step that made them."""
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(self._best[name])
        return min(self.losses, key=lambda step: (self.losses[step], step))

    def _read(self) -> tuple[int, dict[str, torch.Tensor]] | None:
        if self.path is None:
            return None
        try:
            with safe_open(self.path, "pt") as file:
                metadata: dict[str, Any] = file.metadata() or {}
                if metadata.get(_KEY) != self.made_from:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return None
        record = json.loads(metadata[_RECORD])
        self.losses = {int(step): float(loss) for step, loss in record["losses"]}
        return int(record["step"]), tensors
