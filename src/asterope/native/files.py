"""Write files whole or not at all; find the cache directory."""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
from pathlib import Path

__all__ = ["cache_dir", "sources_digest", "write_atomically"]


def cache_dir() -> Path:
    """Return where compiled kernels are kept: `ASTEROPE_CACHE_DIR`, else the user's cache."""
    if named := os.environ.get("ASTEROPE_CACHE_DIR"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "asterope"


@functools.cache
def sources_digest(*packages: str) -> str:
    """Digest the sources of packages of ours, so that an edited compiler drops what it cached."""
    digest = hashlib.sha256()
    for package in packages:
        for file in sorted((Path(__file__).parent.parent / package).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary name in the same directory, flush it to disk, rename it.

    Raises: OSError, with nothing left behind and an older file of that name intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
