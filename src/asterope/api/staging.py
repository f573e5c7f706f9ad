"""A directory that appears whole or not at all: filled beside its place, then renamed."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["staged"]


@contextlib.contextmanager
def staged(directory: Path) -> Iterator[Path]:
    """Yield a new directory that becomes `directory` when the block ends without an error.

    It is locked while its process lives; those of processes that were killed are removed.

    Raises: OSError if it cannot be made or renamed.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    for left in directory.parent.glob(f".{glob.escape(directory.name)}.*.tmp"):
        with contextlib.suppress(OSError), _locked(left):
            shutil.rmtree(left)
    staging = Path(tempfile.mkdtemp(".tmp", f".{directory.name}.", directory.parent))
    try:
        with _locked(staging):
            staging.chmod(0o755)
            yield staging
            staging.rename(directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold a directory's lock, which ends with the process.

    Raises: BlockingIOError if another process holds it.
    """
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
