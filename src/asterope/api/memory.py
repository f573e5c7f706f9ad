"""How much memory a phase of this process took, and what it said it would keep to."""

from __future__ import annotations

import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from asterope import llm
from asterope.api.calibration import Calibration
from asterope.api.language_model import CACHE_WINDOW, LanguageModel
from asterope.quant import Plan, algorithm, load_column_loop, mix_of

__all__ = ["MemoryUse", "MemoryWatch"]

_STATUS = Path("/proc/self/status")
_SLACK = 1.5
_RUNTIME_BYTES = 96 << 20  # a model of 0.3 MB took 87 MB, calibrated on x86-64 Linux


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryUse:
    """The most memory that quantizing held beyond what the process held before, in bytes.

    `working_set_bytes` is that of the largest layer, `mapping_bytes` the size of the checkpoint's
    files: pages of them count while they are mapped, and the system takes them back when it needs
    them. `runtime_bytes` is what libraries and compiled kernels take that are loaded on the way,
    whatever the model is.
    """

    peak_bytes: int
    working_set_bytes: int
    mapping_bytes: int
    runtime_bytes: int = _RUNTIME_BYTES

    @property
    def bound_bytes(self) -> int:
        """What is kept to: 1.5 times the largest layer's working set, mapping and runtime."""
        return round(_SLACK * self.working_set_bytes) + self.mapping_bytes + self.runtime_bytes


class MemoryWatch:
    """Starts where the phase does, with libraries loaded."""

    def __init__(self) -> None:
        for name in ("load_model", "quantize_layers"):
            getattr(llm, name)
        self._before = _resident_bytes("VmRSS")

    def load(self, calibration: Calibration | None) -> None:
        """Load what an algorithm runs that others do not, which is of libraries too."""
        if calibration is not None and calibration.algorithm.feeds_back:
            before = _resident_bytes("VmRSS")
            load_column_loop()
            self._before += _resident_bytes("VmRSS") - before

    def use(
        self, original: LanguageModel, plan: Plan | None, calibration: Calibration | None,
        cache_windows: int = 0,
    ) -> MemoryUse:  # fmt: skip
        """Return what quantizing a checkpoint layer by layer took so far, and its bound.

        So many as `cache_windows` were looked at for the scales of a KV cache.
        """
        directory = original.source.directory
        files = [] if directory is None else directory.glob("*.safetensors")
        how = algorithm("rtn") if calibration is None else calibration.algorithm
        shape = (0, 0) if calibration is None else tuple(calibration.windows.shape)
        mix = mix_of(plan, original.config.num_layers)
        return MemoryUse(
            peak_bytes=max(0, _resident_bytes("VmHWM") - self._before),
            working_set_bytes=llm.working_set_bytes(
                original.config,
                mix,
                how,
                original.model.dtype,
                (shape[0], shape[1]),
                (cache_windows, CACHE_WINDOW),
            ),
            mapping_bytes=sum(file.stat().st_size for file in files),
        )


def _resident_bytes(field: str) -> int:
    """Return resident memory: now (`VmRSS`) or at most (`VmHWM`); the latter where no other is."""
    if _STATUS.exists():
        found = re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text())
        if found is not None:
            return int(found[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
