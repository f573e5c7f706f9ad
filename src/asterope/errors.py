"""The error tree: every error a user can cause says what, where, the limit, and a hint."""

from __future__ import annotations

__all__ = [
    "AsteropeError",
    "CapacityError",
    "CheckpointError",
    "ChipError",
    "ConfigError",
    "DeadlockError",
    "DeviceAssertError",
    "FormatError",
    "IRError",
    "KernelError",
    "OutputError",
    "SanitizerError",
    "ShapeError",
    "UnsupportedError",
]


class AsteropeError(Exception):
    """Base of all errors that Asterope raises on purpose.

    `what` says what is wrong with the value and its limit, `where` names the input (a file, a
    field, a line of the user's kernel), `hint` says what would help. The command line prints
    them and exits with `exit_code`.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\nhint: {self.hint}" if self.hint else text


class FormatError(AsteropeError):
    """A number format, scale rule or rounding that does not exist or does not apply."""


class ShapeError(AsteropeError):
    """A shape that does not fit: the block size does not divide it, or two do not match."""


class ChipError(AsteropeError):
    """A chip description that contradicts itself or names an unknown field."""


class ConfigError(AsteropeError):
    """An option or configuration value outside its limits."""


class CheckpointError(AsteropeError):
    """A checkpoint that is missing, truncated, unsafe or inconsistent."""


class OutputError(AsteropeError):
    """A file could not be written: read-only directory, full disk."""


class IRError(AsteropeError):
    """Tile IR that does not parse or does not verify."""


class KernelError(AsteropeError):
    """A kernel was launched with arguments it cannot take."""


class DeadlockError(KernelError):
    """Parts of a launch wait for each other, and none of them can go on."""


class DeviceAssertError(KernelError, RuntimeError):
    """An assertion of a kernel did not hold; a RuntimeError too, as on a GPU."""


class SanitizerError(KernelError):
    """A kernel touches memory that it must not, read or raced for: ASTEROPE_SANITIZE=1 found it."""


class UnsupportedError(AsteropeError):
    """A valid program uses something Asterope cannot do yet."""


class CapacityError(AsteropeError):
    """A program asks for more memory than the chip has at that level."""
