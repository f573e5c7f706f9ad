"""Values that stress block quantization, shared by the comparisons with other libraries."""

from __future__ import annotations

import ml_dtypes
import numpy as np

ROWS, COLUMNS = 1280, 128


def block_samples(dtype: str) -> np.ndarray:
    """Return 163,840 values: noise of many sizes, zeros, tiny, huge, outliers and exact ties."""
    rng = np.random.default_rng(7)
    normal = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    x = normal.copy()
    x[128:256] *= np.exp2(rng.integers(-60, 60, (128, 1))).astype(np.float32)
    x[256:384] *= rng.choice(np.float32([1, 1, 1, 100, 10_000]), (128, COLUMNS))
    x[384:400] = 0
    x[400:408] = -0.0
    x[408:416, ::2] = 0
    x[416:448] *= np.float32(1e-38)
    x[448:464] *= np.float32(1e-44)
    x[464:480] *= np.float32(1e-36)
    x[480:512] *= np.float32(4e37)
    x[512:640] = rng.integers(-28, 29, (128, COLUMNS)) / np.float32(4)
    x[640:768] = rng.integers(-480, 481, (128, COLUMNS)).astype(np.float32)
    x[768:800, 5] = 3e38
    x[800:832, 7] = -3.38e38
    patterns = rng.integers(0, 0x7F00, (128, COLUMNS)).astype(np.uint16)
    x[832:960] = (patterns & 0x3FFF | 0x2000).view(ml_dtypes.bfloat16).astype(np.float32)
    if dtype == "bfloat16":
        return x.astype(ml_dtypes.bfloat16)
    return x
