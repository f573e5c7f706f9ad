"""A linear layer with quantized weights, as the kernels take it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from asterope.formats import (
    BlockFormat,
    ElementFormat,
    QuantizedTensor,
    block,
    dequantize,
    pack,
    unpack,
)
from asterope.kernels import (
    ExpertRows,
    ScaledOperand,
    block_linear,
    linear,
    quantize_groups,
    quantize_rows,
    scaled_linear,
)
from asterope.quant.recode import to_e4m3
from asterope.quant.rotation import rotate_inputs, rotate_rows
from asterope.quant.scheme import Scheme

__all__ = [
    "QuantizedLinear",
    "from_quantized",
    "held_codes",
    "reciprocal",
    "round_inputs",
    "storable",
]

_TensorSpec = tuple[tuple[int, ...], torch.dtype]


def _specs(
    out_features: int, in_features: int, scheme: Scheme, dtype: torch.dtype, experts: int
) -> dict[str, _TensorSpec]:
    """Return shape and type of the tensors of a layer, without its bias."""
    n, k, fmt = out_features, in_features, scheme.format
    if fmt is None:
        return {"codes": ((n, k), dtype)}
    packed = fmt.element.name == "e2m1"
    codes = ((n, k // 2), torch.uint8) if packed else ((n, k), torch.float8_e4m3fn)
    specs: dict[str, _TensorSpec] = {"codes": codes}
    if isinstance(fmt.granularity, int):
        scale_dtype = torch.uint8 if fmt.scale.name == "e8m0" else torch.float8_e4m3fn
        specs["scales"] = ((n, k // fmt.granularity), scale_dtype)
    if isinstance(fmt.granularity, tuple):
        specs["scales"] = ((n, -(-k // fmt.granularity[1])), torch.float32)
    if fmt.two_level or "scales" not in specs:
        specs["row_scale"] = ((n,), torch.float32)
    if scheme.rank is not None:
        specs["lora_a"] = ((experts * scheme.rank, k), torch.bfloat16)
        specs["lora_b"] = ((n, scheme.rank), torch.bfloat16)
    return specs


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QuantizedLinear:
    """Weights and bias of a linear layer: value = code x block scale x row scale.

    Where the scheme rotates, the values are those of the rotated weight, and so inputs are rotated.

    A scale of the whole tensor (fp8_tensor, nvfp4) is held once a row, so that layers with
    different ones can be concatenated. Codes of mxfp6 and mxfp4_e1m2 are held as the e4m3 codes of
    the same numbers, eight bits each, because that is what the tensor unit multiplies; checkpoints
    have them at six and four bits. Scales of blocks of several rows (fp8_block128) are held once a
    row, so that layers that end inside a block can be concatenated.

    `input_scale` is a static scale that inputs are quantized with, in place of one for each row.

    Where the scheme has a rank, the inputs as they come pass a branch of it beside the codes, which
    hold the rest of the weight: weight = value + lora_b lora_a. Layers of experts are one below
    another, and so are their branches.

    Shapes: codes [N, K] e4m3 or the unquantized weight, [N, K / 2] packed for e2m1; scales
    [N, K / block], bytes of E8M0 or e4m3, or float32; row_scale [N] float32; bias [N]; lora_a
    [rank, K], of E experts [E x rank, K], and lora_b [N, rank] bf16.
    """

    scheme: Scheme
    codes: torch.Tensor
    scales: torch.Tensor | None = None
    row_scale: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    input_scale: float | None = None
    lora_a: torch.Tensor | None = None
    lora_b: torch.Tensor | None = None

    @classmethod
    def empty(
        cls,
        out_features: int,
        in_features: int,
        scheme: Scheme,
        *,
        device: torch.device | str = "meta",
        bias: bool = False,
        dtype: torch.dtype = torch.bfloat16,
        experts: int = 1,
    ) -> QuantizedLinear:
        """Return a layer with tensors of the right shapes and no values in them.

        `dtype` is that of the bias, and of the weight if the scheme does not quantize it; so many
        `experts` share the outputs.

        Raises: ShapeError if the block does not divide K.
        """
        scheme.check_shape((out_features // experts, in_features), "weight")
        specs = _specs(out_features, in_features, scheme, dtype, experts)
        if bias:
            specs["bias"] = ((out_features,), dtype)
        tensors = {
            name: torch.empty(shape, dtype=kind, device=device)
            for name, (shape, kind) in specs.items()
        }
        return cls(scheme=scheme, input_scale=None, **tensors)

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors there are, by the names of their fields."""
        named = {
            "codes": self.codes,
            "scales": self.scales,
            "row_scale": self.row_scale,
            "bias": self.bias,
            "lora_a": self.lora_a,
            "lora_b": self.lora_b,
        }
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @property
    def out_features(self) -> int:
        """Return N."""
        return int(self.codes.shape[0])

    @property
    def in_features(self) -> int:
        """Return K."""
        return int(self.codes.shape[1]) * (2 if self.element == "e2m1" else 1)

    @property
    def element(self) -> str | None:
        """Return the element format of `codes`, None if they are the unquantized weight."""
        if self.scheme.format is None:
            return None
        return "e2m1" if self.scheme.format.element.name == "e2m1" else "e4m3"

    @property
    def num_bytes(self) -> int:
        """Return the bytes that lie in HBM and are read for one use of the layer.

        For mxfp6 and mxfp4_e1m2 that is one byte a weight, more than in their checkpoints.
        """
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    @property
    def branch_bytes(self) -> int:
        """Return those of `num_bytes` that are of the branch, 0 without one."""
        factors = (t for t in (self.lora_a, self.lora_b) if t is not None)
        return sum(t.numel() * t.element_size() for t in factors)

    @property
    def num_branches(self) -> int:
        """Return how many experts have a branch each; 1 for a layer of none, 0 without one."""
        return 0 if self.lora_a is None else len(self.lora_a) // int(self.scheme.rank or 1)

    def branch(self) -> torch.Tensor | None:
        """Return what the branch adds to the weight. Shapes: result [N, K] float32."""
        if self.lora_a is None or self.lora_b is None:
            return None
        count, (n, rank) = self.num_branches, self.lora_b.shape
        first = self.lora_a.float().view(count, rank, -1)
        return torch.bmm(self.lora_b.float().view(count, n // count, rank), first).view(n, -1)

    @property
    def without_branch(self) -> QuantizedLinear:
        """Return what is beside the branch."""
        scheme = self.scheme.without_branch
        return dataclasses.replace(self, scheme=scheme, lora_a=None, lora_b=None)

    def apply(
        self, x: torch.Tensor, *, out_dtype: torch.dtype | None = None,
        experts: ExpertRows | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Return x W^T + bias, on the kernels, with x rounded as the scheme says.

        With `experts` the layer is theirs, one below another, and each row of x is multiplied by
        the weight of its expert.

        Activations in bf16 are rounded to it whatever x is; an unquantized layer takes x as it is.
        The result has the type of x unless `out_dtype` says otherwise.

        Shapes: x [tokens, K]; result [tokens, N], of E experts [tokens, N / E].
        Raises: ShapeError if x does not fit.
        """
        out_dtype = out_dtype or x.dtype
        made = self._product(x, out_dtype, experts)
        if self.lora_a is None or self.lora_b is None:
            return made
        inner = linear(x.to(torch.bfloat16), self.lora_a, experts=experts)
        return linear(inner, self.lora_b, addend=made, out_dtype=out_dtype, experts=experts)

    def _product(
        self, x: torch.Tensor, out_dtype: torch.dtype, experts: ExpertRows | None
    ) -> torch.Tensor:
        """Return the product with the codes, and the bias."""
        if self.scheme.format is None:
            x = x.to(torch.promote_types(x.dtype, self.codes.dtype))
            return linear(x, self.codes, bias=self.bias, out_dtype=out_dtype, experts=experts)
        moving = self._activations(x)
        if self.scales is None:
            return linear(
                moving.codes,
                self.codes,
                bias=self.bias,
                x_scale=moving.row_scale,
                weight_scale=self.row_scale,
                out_dtype=out_dtype,
                experts=experts,
            )
        stationary = ScaledOperand(
            codes=self.codes,
            format=str(self.element),
            scales=self.scales,
            row_scale=self.row_scale,
        )
        product = block_linear if self._has_blocks_of_rows else scaled_linear
        return product(moving, stationary, bias=self.bias, out_dtype=out_dtype, experts=experts)

    @property
    def _has_blocks_of_rows(self) -> bool:
        fmt = self.scheme.format
        return fmt is not None and isinstance(fmt.granularity, tuple)

    def _activations(self, x: torch.Tensor) -> ScaledOperand:
        if self.scheme.rotation is not None:
            x = rotate_inputs(x, self.scheme.rotation)
        return round_inputs(x, self.scheme, scale=self.input_scale)

    def dequantize(self) -> torch.Tensor:
        """Return the weight in float32: code x block scale, times the row scale, turned back.

        The branch, if there is one, is added.

        Shapes: result [N, K].
        """
        values, branch = self._values(), self.branch()
        return values if branch is None else values.add_(branch)

    def _values(self) -> torch.Tensor:
        if self.scheme.format is None:
            return self.codes.float()
        if self._has_blocks_of_rows:
            return self._unrotated(self.codes.float().mul_(self.element_scales()))
        fmt = self._held_format(self.scheme.format)
        if self.scales is not None:
            scales = self.scales.view(torch.uint8)
        else:
            assert self.row_scale is not None
            scales = self.row_scale[:, None]
        held = QuantizedTensor(
            codes=self.codes.view(torch.uint8).numpy(),
            scales=scales.numpy(),
            global_scale=None,
            format=fmt,
            rule=fmt.default_rule,
            rounding="nearest_even",
            axis=1,
            seed=None,
            packed=self.element == "e2m1",
        )
        weight = torch.from_numpy(dequantize(held))
        if self.scales is not None and self.row_scale is not None:
            weight.mul_(self.row_scale[:, None])
        return self._unrotated(weight)

    def block_scales(self) -> torch.Tensor:
        """Return what the codes of each block are multiplied by. Shapes: result [N, blocks]."""
        if self.scales is None:
            assert self.row_scale is not None
            return self.row_scale[:, None]
        is_e8m0 = self.scales.dtype == torch.uint8
        scales = (self.scales.view(torch.float8_e8m0fnu) if is_e8m0 else self.scales).float()
        return scales if self.row_scale is None else scales * self.row_scale[:, None]

    def element_scales(self) -> torch.Tensor:
        """Return what the code of each element is multiplied by. Shapes: result [N, K]."""
        assert self.scheme.format is not None
        scales, k, size = self.block_scales(), self.in_features, self.scheme.format.granularity
        repeats = size[1] if isinstance(size, tuple) else k // scales.shape[1]
        return scales.repeat_interleave(repeats, 1)[:, :k]

    def _unrotated(self, weight: torch.Tensor) -> torch.Tensor:
        rotation = self.scheme.rotation
        return weight if rotation is None else rotate_rows(weight, rotation)

    def _held_format(self, fmt: BlockFormat) -> BlockFormat:
        """Return the format that codes and scales have here: a scale a row, e4m3 for e2m3."""
        if self.scales is None:
            return block("fp8_row")
        return fmt if self.element == fmt.element.name else block("mxfp8")


def round_inputs(x: torch.Tensor, scheme: Scheme, *, scale: float | None = None) -> ScaledOperand:
    """Round inputs as a scheme says, rotated already where it rotates; `scale` is a static one.

    Shapes: x [tokens, K].
    """
    fmt = scheme.activation_format
    if fmt is None:
        return ScaledOperand(codes=x.to(torch.bfloat16), format="bf16")
    if scheme.activations == "same" and isinstance(block(fmt).granularity, tuple):
        return quantize_groups(x)
    return quantize_rows(x, fmt, scheme.rule if fmt == scheme.weights else None, scale=scale)


def reciprocal(x: float | np.float32) -> np.float32:
    """Return 1 / x in float32. Done three times it gives what it gives once."""
    return np.float32(1) / np.float32(x)


def storable(global_scale: float | np.float32) -> np.float32:
    """Return the nearby global scale that survives a checkpoint, which stores its reciprocal."""
    return reciprocal(reciprocal(global_scale))


def from_quantized(
    q: QuantizedTensor, scheme: Scheme, *, bias: torch.Tensor | None = None
) -> QuantizedLinear:
    """Return the layer that holds a quantized weight, its global scale as it is.

    Shapes: q [N, K], reduced along K, packed or not.
    """
    n, k = q.shape
    element = q.format.element
    if q.packed and element.name == "e2m1":
        held = torch.from_numpy(q.codes)
    else:
        held = held_codes(unpack(q.codes, element, k) if q.packed else q.codes, element)
    if isinstance(q.format.granularity, tuple):
        rows = np.repeat(q.scales, q.format.granularity[0], axis=0)[:n]
        scales = torch.from_numpy(np.ascontiguousarray(rows))
        return QuantizedLinear(scheme=scheme, codes=held, scales=scales, bias=bias)
    if q.scales.dtype == np.float32:
        row_scale = torch.from_numpy(np.broadcast_to(q.scales.reshape(-1), n).copy())
        return QuantizedLinear(scheme=scheme, codes=held, row_scale=row_scale, bias=bias)
    scales = torch.from_numpy(q.scales)
    upper = None
    if q.format.two_level:
        one = 1.0 if q.global_scale is None else float(q.global_scale)
        upper = torch.full((n,), one, dtype=torch.float32)
        scales = scales.view(torch.float8_e4m3fn)
    return QuantizedLinear(scheme=scheme, codes=held, scales=scales, row_scale=upper, bias=bias)


def held_codes(codes: npt.NDArray[np.uint8], element: ElementFormat) -> torch.Tensor:
    """Return the codes of a weight as layers hold them. Shapes: codes [N, K], one a byte."""
    if element.name == "e2m1":
        return torch.from_numpy(pack(codes, element))
    if element.name != "e4m3":
        codes = to_e4m3(codes, element)
    return torch.from_numpy(codes).view(torch.float8_e4m3fn)
