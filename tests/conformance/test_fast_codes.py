"""Element codes in machine code against the definition: every code, on every instruction set."""

from __future__ import annotations

import ctypes
import functools

import ml_dtypes
import numpy as np
import pytest

from asterope.errors import FormatError
from asterope.formats import (
    ELEMENTS,
    ElementFormat,
    decode,
    element,
    emit_decode,
    emit_encode,
    emit_round,
    encode,
    pack,
    reference_decode,
    reference_encode,
    reference_pack,
    reference_unpack,
    uniform32,
    unpack,
)
from asterope.native import Library, Module, available_isas, compile_object, isa_named
from isas import EACH_ISA

LANES = 16
SEED = 11
DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16]
ROUNDINGS = ["nearest_even", "toward_zero", "stochastic"]
OVERFLOWS = ["saturate", "special"]
ENCODED = [name for name, fmt in ELEMENTS.items() if fmt.specials != "scale" and fmt.bits < 32]
NARROW = [name for name, fmt in ELEMENTS.items() if fmt.bits <= 8]


def bits(x):
    """Return float32 bit patterns with all NaNs made one."""
    return np.where(np.isnan(x), np.uint32(0x7FC0_0000), x.view(np.uint32))


@functools.cache
def probes(name):
    """Return float32 values: all of bf16 and fp16, all values and ties one ulp around, noise."""
    fmt = element(name)
    bf16 = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16).astype(np.float32)
    fp16 = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    values = np.array([fmt.value(code) for code in range(fmt.max_code + 1)])
    values = np.append(values, 2 * values[-1] - values[-2])
    with np.errstate(over="ignore"):
        edges = np.concatenate([values, (values[1:] + values[:-1]) / 2]).astype(np.float32)
    edges = edges[np.isfinite(edges)]
    around = [edges, np.nextafter(edges, np.float32(0)), np.nextafter(edges, np.float32(np.inf))]
    noise = np.random.default_rng(2).integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    x = np.concatenate([bf16, fp16, *around, *(-part for part in around), noise.view(np.float32)])
    x = x if fmt.has_nan else x[~np.isnan(x)]
    return np.ascontiguousarray(x[: x.size // LANES * LANES])


@functools.cache
def defined_codes(name, rounding, overflow):
    return reference_encode(probes(name), name, rounding=rounding, overflow=overflow, seed=SEED)


class Native:
    """Machine code of one instruction set for `emit_decode`, `emit_encode` and `emit_round`."""

    def __init__(self, isa):
        module = Module(isa)
        self.names = []
        for fmt in ELEMENTS.values():
            self._add(
                module, f"decode_{fmt.name}", "i32", lambda x, _, fmt=fmt: emit_decode(x, fmt)
            )
        for name in ENCODED:
            for rounding in ROUNDINGS:
                for overflow in OVERFLOWS:
                    emit = functools.partial(self._encode, element(name), rounding, overflow)
                    self._add(module, f"encode_{name}_{rounding}_{overflow}", "f32", emit)
        for name in ("bf16", "fp16"):
            fmt = element(name)
            self._add(module, f"round_{name}", "f32", lambda x, _, fmt=fmt: emit_round(x, fmt))
        self.library = Library(compile_object(module.text(), isa), self.names, {})

    @staticmethod
    def _encode(fmt, rounding, overflow, x, uniform):
        return emit_encode(x, fmt, rounding=rounding, overflow=overflow, uniform=uniform)

    def _add(self, module, name, kind, emit):
        params = [("ptr", "x"), ("ptr", "uniform"), ("ptr", "out"), ("i64", "num")]
        fn = module.function(name, params)
        x, uniform, out, num = fn.args
        with fn.loop(0, num, LANES) as i:
            values = fn.load(x.offset(i * 4), kind, LANES)
            numbers = fn.load(uniform.offset(i * 4), "i32", LANES)
            fn.store(emit(values, numbers), out.offset(i * 4))
        fn.finish()
        self.names.append(name)

    def __call__(self, name, x, uniform):
        out = np.empty(x.size, np.uint32)
        pointer = ctypes.c_void_p
        run = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, ctypes.c_int64)
        addresses = (part.ctypes.data for part in (x, uniform, out))
        run(self.library.symbols[name])(*addresses, x.size)
        return out


@pytest.fixture(scope="module", params=EACH_ISA)
def native(request):
    return Native(isa_named(request.param))


def test_the_portable_code_is_among_those_tested():
    assert "portable" in available_isas()


@pytest.mark.parametrize("name", [name for name, fmt in ELEMENTS.items() if fmt.bits <= 16])
def test_every_code_decodes_as_defined(native, name):
    codes = np.arange(element(name).num_codes, dtype=np.uint32)
    values = native(f"decode_{name}", codes, codes).view(np.float32)
    np.testing.assert_array_equal(bits(values), bits(reference_decode(codes, name)))


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", ENCODED)
def test_every_probe_encodes_as_defined(native, name, rounding, overflow):
    x = probes(name)
    uniform = uniform32(SEED, np.arange(x.size, dtype=np.uint64))
    codes = native(f"encode_{name}_{rounding}_{overflow}", x, uniform)
    np.testing.assert_array_equal(codes, defined_codes(name, rounding, overflow))


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_every_probe_rounds_to_the_nearest_sixteen_bit_value(native, name):
    x = probes(name)
    rounded = native(f"round_{name}", x, x).view(np.float32)
    expected = reference_decode(reference_encode(x, name, overflow="special"), name)
    np.testing.assert_array_equal(bits(rounded), bits(expected))


def test_fp32_codes_are_its_bits(native):
    x = np.random.default_rng(0).integers(0, 1 << 32, 4096, dtype=np.uint32)
    np.testing.assert_array_equal(native("decode_fp32", x, x), x)


@pytest.mark.parametrize("name", ["e2m1", "e4m3", "int8"])
def test_the_smallest_fraction_is_rounded_up_by_a_random_number_of_zero(native, name):
    x = np.full(LANES, 2.0**-60, np.float32)
    uniform = np.arange(LANES, dtype=np.uint32)
    codes = native(f"encode_{name}_stochastic_saturate", x, uniform)
    assert codes.tolist() == [1] + [0] * (LANES - 1)


# -- whole arrays ---------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", ENCODED)
def test_encoding_a_large_array_equals_the_definition(name, rounding, dtype):
    with np.errstate(over="ignore", invalid="ignore"):
        x = probes(name)[:70_001].astype(dtype)
    for overflow in OVERFLOWS:
        options = {"rounding": rounding, "overflow": overflow, "seed": SEED}
        codes, expected = encode(x, name, **options), reference_encode(x, name, **options)
        assert codes.dtype == expected.dtype
        np.testing.assert_array_equal(codes, expected)


@pytest.mark.parametrize("name", ELEMENTS)
def test_decoding_a_large_array_equals_the_definition_in_every_bit(name):
    fmt = element(name)
    codes = np.random.default_rng(4).integers(0, fmt.num_codes, (67, 1031)).astype(fmt.code_dtype)
    codes[0] = np.arange(1031) % fmt.num_codes
    values, expected = decode(codes, name), reference_decode(codes, name)
    np.testing.assert_array_equal(values.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("shape", [(64, 96), (3, 17, 112), (1, 4100), (4113,), (81, 65)])
@pytest.mark.parametrize("name", NARROW)
def test_packing_a_large_array_equals_the_definition(name, shape):
    codes = np.random.default_rng(5).integers(0, element(name).num_codes, shape).astype(np.uint8)
    packed = pack(codes, name)
    np.testing.assert_array_equal(packed, reference_pack(codes, name))
    np.testing.assert_array_equal(unpack(packed, name, shape[-1]), codes)
    np.testing.assert_array_equal(reference_unpack(packed, name, shape[-1]), codes)


def test_arrays_out_of_order_are_read_in_theirs():
    x = np.random.default_rng(6).standard_normal((96, 128)).astype(np.float32)
    misaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    assert not misaligned.flags.aligned
    codes = reference_encode(x, "e4m3")
    np.testing.assert_array_equal(encode(x.T, "e4m3"), codes.T)
    np.testing.assert_array_equal(encode(x[::2], "e4m3"), codes[::2])
    np.testing.assert_array_equal(encode(misaligned, "e4m3"), codes)
    np.testing.assert_array_equal(decode(codes.T, "e4m3"), reference_decode(codes, "e4m3").T)
    nibbles = codes % 16
    np.testing.assert_array_equal(pack(nibbles.T, "e2m1"), reference_pack(nibbles.T, "e2m1"))


def test_a_format_outside_the_table_is_left_to_the_definition():
    fmt = ElementFormat(name="e3m1", exponent_bits=3, mantissa_bits=1, bias=3, specials="finite")
    x = np.random.default_rng(7).standard_normal(5000).astype(np.float32)
    codes = encode(x, fmt)
    np.testing.assert_array_equal(codes, reference_encode(x, fmt))
    np.testing.assert_array_equal(decode(codes, fmt), reference_decode(codes, fmt))


def test_nan_in_a_large_array_is_named_by_its_place():
    x = np.zeros((100, 64), np.float32)
    x[70, 3] = x[99, 9] = np.nan
    with pytest.raises(FormatError, match=r"e2m1 x\[70, 3\]: the value is NaN"):
        encode(x, "e2m1")


def test_a_wide_code_in_a_large_array_is_named_by_its_place():
    codes = np.zeros((100, 64), np.uint8)
    codes[55, 7] = 16
    with pytest.raises(FormatError, match=r"e2m1 codes\[55, 7\]: code 16 is outside 0\.\.15"):
        decode(codes, "e2m1")
    with pytest.raises(FormatError, match="e2m1: code 16 does not fit in 4 bits"):
        pack(codes, "e2m1")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: encode(x.astype(np.float64), "e4m3"), "x: values are float64"),
        (lambda x: encode(x, "e8m0"), "e8m0: a scale is not rounded to nearest"),
        (lambda x: encode(x, "e4m3", rounding="up"), "rounding: there is no rounding named 'up'"),
        (lambda x: encode(x, "e4m3", overflow="wrap"), "overflow: there is no overflow mode"),
        (lambda x: encode(x, "e4m3", rounding="stochastic"), "seed: stochastic rounding needs"),
        (lambda x: encode(x, "e4m3", rounding="stochastic", seed=-1), "seed -1 is outside"),
        (lambda x: decode(x, "e4m3"), "e4m3: codes are float32; integers are needed"),
        (lambda x: pack(x, "e2m1"), "e2m1: codes are float32; an array of uint8 is needed"),
        (lambda x: pack(x.astype(np.uint8), "bf16"), "bf16: codes of 16 bits are not packed"),
    ],
)
def test_wrong_arguments_of_a_large_array_get_the_definitions_error(call, message):
    with pytest.raises(FormatError, match=message):
        call(np.ones((100, 64), np.float32))
