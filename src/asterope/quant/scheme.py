"""What is quantized to what: a format for the weights, one for the activations, a scale rule."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from asterope.errors import FormatError, ShapeError
from asterope.formats import BlockFormat, block

__all__ = ["ACTIVATIONS", "UNQUANTIZED", "WEIGHT_FORMATS", "Scheme", "scheme"]

UNQUANTIZED = "none"
WEIGHT_FORMATS = (
    "fp8_tensor", "fp8_row", "fp8_block128", "mxfp8", "mxfp6", "mxfp4", "mxfp4_e1m2", "nvfp4",
)  # fmt: skip
"""The formats that weights can have; each is a row of `formats.BLOCKS`."""
ACTIVATIONS = ("bf16", "fp8", "same")
"""Not quantized; e4m3 with a dynamic float32 scale a row; or the format of the weights, which for
fp8_block128 means e4m3 with a dynamic float32 scale for each 128 elements of a row."""

_MOST_ROTATED = 256
_MOST_RANK = 1024
_MOST_DIGITS = 9
_PLAIN_ROTATION = 32  # where a format has no blocks of its own
_FP8_WEIGHTS = ("fp8_tensor", "fp8_row")
_ALIASES = {"fp8": "fp8_row", "fp8_block": "fp8_block128", "bf16": UNQUANTIZED}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """Say how the linear layers of a model are quantized.

    `weights` is one of `WEIGHT_FORMATS`, or `none`: kept as they are. `activations` is one of
    `ACTIVATIONS`; `same` beside fp8 weights is `fp8`, and is stored so. `rule` is the scale rule of
    the weights, and of the activations where they have the same format; left out, it becomes the
    default of the format. It is None only without quantized weights. With `rotation` inputs and
    weights are rotated in blocks of so many neighbours along K, a power of two (`rotation.py`).
    With `rank` a bf16 branch of that rank makes up for a part of the error (`low_rank.py`).

    Raises: FormatError for a name or a combination that does not exist.
    """

    weights: str
    activations: str = "bf16"
    rule: str | None = None
    rotation: int | None = None
    rank: int | None = None

    def __post_init__(self) -> None:
        _known(self.weights, (UNQUANTIZED, *WEIGHT_FORMATS), "weights")
        _known(self.activations, ACTIVATIONS, "activations")
        if self.weights == UNQUANTIZED:
            self._check_unquantized()
            return
        fmt = block(self.weights)
        if self.rule is not None and self.rule not in fmt.rules:
            raise FormatError(
                f"scale rule {str(self.rule)!r} does not apply to {fmt.name}",
                where="rule",
                hint=f"use {' or '.join(fmt.rules)}",
            )
        object.__setattr__(self, "rule", str(self.rule or fmt.default_rule))
        size = self.rotation
        if size is not None and not (2 <= size <= _MOST_ROTATED and size & (size - 1) == 0):
            raise FormatError(
                f"blocks of {size} are not rotated", where="rotation",
                hint=f"use a power of two up to {_MOST_ROTATED}",
            )  # fmt: skip
        if self.rank is not None and not 1 <= self.rank <= _MOST_RANK:
            raise FormatError(f"{self.rank} is outside 1..{_MOST_RANK}", where="rank")
        if self.weights in _FP8_WEIGHTS and self.activations == "same":
            object.__setattr__(self, "activations", "fp8")

    def _check_unquantized(self) -> None:
        for field, value in (
            ("activations", self.activations), ("rule", self.rule), ("rotation", self.rotation),
            ("rank", self.rank),
        ):  # fmt: skip
            if value not in ("bf16", None):
                raise FormatError(
                    f"{value} needs quantized weights",
                    where=field,
                    hint=f"weights can be {', '.join(WEIGHT_FORMATS)}",
                )

    @property
    def format(self) -> BlockFormat | None:
        """Return the row of the format table that the weights have; None if not quantized."""
        return None if self.weights == UNQUANTIZED else block(self.weights)

    @property
    def activation_format(self) -> str | None:
        """Return the format activations are quantized to, as `kernels.quantize_rows` names it."""
        return {"bf16": None, "fp8": "fp8"}.get(self.activations, self.weights)

    @property
    def activation_bits(self) -> float:
        """Return the bits of an activation with its share of a block's scale."""
        name = self.activation_format
        if name is None:
            return 16.0
        if name == "fp8":
            return 8.0
        fmt = block(name)
        size = fmt.granularity[1] if isinstance(fmt.granularity, tuple) else fmt.granularity
        size = size if isinstance(size, int) else 0
        return fmt.element.bits + (fmt.scale.bits / size if size else 0)

    @property
    def name(self) -> str:
        """Return the scheme as `scheme` reads it, without the rule: `mxfp4/fp8+h32+r16`."""
        activations = self.activation_format
        name = self.weights if activations is None else f"{self.weights}/{activations}"
        rotation = "" if self.rotation is None else f"+h{self.rotation}"
        return name + rotation + ("" if self.rank is None else f"+r{self.rank}")

    def describe(self) -> str:
        """Return the scheme in words, with the rule where it is not the default."""
        if self.format is None:
            return "unquantized"
        default = self.rule == self.format.default_rule
        rule = "" if default else f" (scale rule {self.rule})"
        rotation = "" if self.rotation is None else f", rotated in blocks of {self.rotation}"
        activations = self.activation_format or "bf16"
        rank = "" if self.rank is None else f", a branch of rank {self.rank}"
        return f"{self.weights} weights{rule}, {activations} activations{rotation}{rank}"

    @property
    def without_branch(self) -> Scheme:
        """Return what is beside the branch."""
        return dataclasses.replace(self, rank=None)

    def check_shape(self, shape: Sequence[int], name: str) -> None:
        """Check that a weight of that shape has two axes and is made of whole blocks along K.

        Raises: ShapeError naming the tensor.
        """
        if len(shape) != 2 or 0 in shape:
            raise ShapeError(
                f"shape {list(shape)} is not that of a linear layer's weight",
                where=name,
                hint="weights are [out, in]",
            )
        if self.rotation is not None and shape[1] % self.rotation:
            raise ShapeError(
                f"rotated blocks of {self.rotation} do not divide K = {shape[1]} of shape "
                f"{list(shape)}",
                where=name,
                hint="rotate smaller ones, such as +h16, or none",
            )
        if self.rank is not None and self.rank > min(shape):
            raise ShapeError(
                f"a branch of rank {self.rank} is no smaller than shape {list(shape)}",
                where=name, hint=f"use a rank up to {min(shape)}",
            )  # fmt: skip
        size = self.format.granularity if self.format else None
        if not isinstance(size, int) or shape[1] % size == 0:
            return
        raise ShapeError(
            f"blocks of {size} ({self.weights}) do not divide K = {shape[1]} of shape "
            f"{list(shape)}",
            where=name,
            hint="use fp8_row or fp8_tensor, which have no blocks, or leave this layer unquantized",
        )


def scheme(text: str, *, activations: str | None = None, rule: str | None = None) -> Scheme:
    """Read a scheme as people write it, in any case.

    `mxfp4` is weights alone; `mxfp4/fp8` says the activations too, as do `mxfp4/same` and the
    suffix of `nvfp4a16`, weights alone. `fp8` means fp8_row, `bf16` and `none` mean unquantized.
    `+h` at the end rotates in blocks of the format's own size, `+h64` in blocks of 64; `+r32` adds
    a branch of rank 32.

    Raises: FormatError with the nearest name, if there is none, or two that contradict.
    """
    named, *added = text.strip().lower().replace("-", "_").split("+")
    weights, slash, said = named.partition("/")
    if not slash and weights.endswith("a16"):
        weights, said = weights.removesuffix("a16").rstrip("_"), "bf16"
    weights = _ALIASES.get(weights, weights)
    readings = [
        _activations(a.strip().lower().replace("-", "_"), weights)
        for a in (said or None, activations)
        if a is not None
    ]
    if slash and not said:
        raise FormatError("no activations after the slash", where=repr(text))
    if len(set(readings)) > 1:
        raise FormatError(
            f"activations are {readings[0]} in {text!r} and {readings[1]} beside it",
            where="activations",
        )
    return Scheme(
        weights=weights,
        activations=readings[0] if readings else "bf16",
        rule=None if rule is None else rule.strip().lower(),
        **_added(added, weights),
    )


def _added(texts: Sequence[str], weights: str) -> dict[str, int]:
    """Return the size of rotated blocks and the rank of a branch, from what is after each plus."""
    found: dict[str, int] = {}
    for text in texts:
        field, size = {"h": "rotation", "r": "rank"}.get(text[:1]), text[1:]
        if text == "h":
            own = block(weights).granularity if weights in WEIGHT_FORMATS else None
            size = str(own if isinstance(own, int) else _PLAIN_ROTATION)
        if field is None or not size.isdecimal() or len(size) > _MOST_DIGITS:
            raise FormatError(
                f"{text!r} is neither a rotation nor a rank", where="rotation",
                hint="write +h, +h64 for blocks of 64, or +r32 for a branch of rank 32",
            )  # fmt: skip
        if field in found:
            raise FormatError(f"is said twice: {' and '.join(texts)}", where=field)
        found[field] = int(size)
    return found


def _activations(text: str, weights: str) -> str:
    """Return the name of activations that are said by the name of a format."""
    if text in (UNQUANTIZED, "a16"):
        return "bf16"
    if text == weights and text in WEIGHT_FORMATS:
        return "same"
    return "fp8" if _ALIASES.get(text) == "fp8_row" else text


def _known(name: str, names: Sequence[str], field: str) -> None:
    if name in names:
        return
    close = difflib.get_close_matches(str(name), names, n=1)
    guess = f"did you mean {close[0]}? " if close else ""
    what = "format" if field == "weights" else "activation format"
    raise FormatError(
        f"there is no {what} named {name!r}",
        where=field,
        hint=f"{guess}{field} can be {', '.join(names)}",
    )
