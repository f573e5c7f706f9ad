"""Triton kernels: the `triton.backends` plug-in, and TTIR to tile IR.

Triton finds back ends while it is being imported and then imports this package, so Triton comes
first here too.
"""

from __future__ import annotations

import triton as _triton  # noqa: F401
