"""Freed memory goes back to the system."""

import re
from pathlib import Path

import numpy as np
import pytest

from asterope.native import release_freed

STATUS = Path("/proc/self/status")


@pytest.mark.skipif(not STATUS.exists(), reason="resident memory is read from Linux's /proc")
def test_what_was_freed_is_given_back():
    def resident():
        return int(re.search(r"VmRSS:\s+(\d+) kB", STATUS.read_text())[1]) * 1024

    blocks = [np.ones(1 << 13) for _ in range(1000)]  # 64 MB in blocks that stay in the heap
    held = resident()
    kept = np.ones(1 << 13)  # lies above them: the heap does not shrink by itself
    del blocks
    release_freed()
    assert resident() < held - (32 << 20)
    assert kept.all()
