"""Numbers to codes and back: one rounding to nearest, ties to even, for every element format.

A code is the element's bits as an unsigned integer (uint8, uint16 or uint32). Decoding is exact in
float64. What happens outside a format's range:

- integers, bipolar, ternary, shift: saturate; infinities too; NaN is refused.
- floats with infinities (float32, float16, bfloat16, float8_e5m2): overflow to infinity.
- float8_e4m3fn: overflow and infinities become NaN. float6 and float4 saturate and refuse NaN.
- with ``saturate=True`` every float goes to its largest finite value instead; NaN stays NaN.
- float8_e8m0fnu: the nearest power of two, ties up; zero, negatives and overflow become NaN;
  a positive value below 2**-127 becomes 2**-127.

NaN has one code per format: quiet, positive. Zero keeps its sign, subnormals are kept.
"""

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from machine.errors import UserError
from machine.formats import Format, Kind

__all__ = ["decode", "encode", "integers", "pack", "round_to", "unpack"]

Codes = NDArray[np.unsignedinteger]


def encode(values: ArrayLike, fmt: Format, *, saturate: bool = False) -> Codes:
    """Return the codes of `values` [..., K], each rounded once, in element format `fmt`.

    Raises `UserError` for a NaN that the format cannot hold, `ValueError` for a block format.
    """
    x = np.asarray(values)
    if fmt.name == "float32" and not saturate:
        return _float32_bits(x)
    with np.errstate(invalid="ignore"):  # a signalling NaN is only a NaN
        x = x.astype(np.float64)
    match fmt.kind:
        case Kind.FLOAT:
            codes = _encode_float(x, fmt, saturate)
        case Kind.POWER:
            codes = _encode_power(x, fmt)
        case Kind.BLOCK:
            raise ValueError(f"{fmt.name} is a block format: use golden.blocks")
        case _:
            _refuse_nan(x, fmt)
            codes = _ENCODE_INTEGER[fmt.kind](x, fmt) & (2**fmt.bits - 1)
    return codes.astype(_code_type(fmt))


def decode(codes: ArrayLike, fmt: Format) -> NDArray[np.float64]:
    """Return the exact values of `codes` [..., K] of element format `fmt`."""
    c = np.asarray(codes).astype(_code_type(fmt))
    if fmt.name == "float32":
        with np.errstate(invalid="ignore"):
            return c.view(np.float32).astype(np.float64)
    if fmt.kind in (Kind.FLOAT, Kind.POWER):
        return _float_values(fmt)[c]
    return integers(c, fmt).astype(np.float64)


def integers(codes: ArrayLike, fmt: Format) -> NDArray[np.int64]:
    """Return the int64 values of `codes` [..., K] of an integer, bipolar, ternary or shift format.

    Raises `UserError` for the ternary code 0b10, which stands for nothing.
    """
    c = np.asarray(codes).astype(np.int64)
    match fmt.kind:
        case Kind.BIPOLAR:
            return 2 * c - (2**fmt.bits - 1)
        case Kind.SHIFT:
            half = 2 ** (fmt.bits - 1)
            return np.where(c >= half, -1, 1) << (c % half)
        case Kind.TERNARY:
            if np.any(c == 2):
                raise UserError("ternary code must be 0, 1 or 3, not 2")
            return np.where(c == 3, -1, c)
        case Kind.INTEGER:
            return c - ((c >> (fmt.bits - 1)) << fmt.bits) if fmt.signed else c
    raise ValueError(f"{fmt.name} does not hold integers")


def round_to(values: ArrayLike, fmt: Format, *, saturate: bool = False) -> NDArray[np.float64]:
    """Return `values` [..., K] rounded once to element format `fmt`, as float64."""
    return decode(encode(values, fmt, saturate=saturate), fmt)


def pack(codes: ArrayLike, fmt: Format, *, align_rows: bool = False) -> bytes:
    """Return `codes` [..., K] as bytes: element i of the array at bits i * bits, low bit first.

    With `align_rows` every row (last axis) starts on a byte; else only the end is padded.
    """
    c = np.ascontiguousarray(codes, dtype=_code_type(fmt))
    rows = c.reshape(-1, c.shape[-1]) if align_rows and c.size else c.reshape(1, -1)
    if fmt.bits == 8 * c.itemsize:
        return c.astype(c.dtype.newbyteorder("<")).tobytes()
    octets = rows.astype(rows.dtype.newbyteorder("<")).view(np.uint8)
    bits = np.unpackbits(octets.reshape(*rows.shape, c.itemsize), axis=-1, bitorder="little")
    bits = bits[..., : fmt.bits].reshape(rows.shape[0], -1)
    return np.packbits(bits, axis=-1, bitorder="little").tobytes()


def unpack(data: bytes, fmt: Format, shape: tuple[int, ...], *, align_rows: bool = False) -> Codes:
    """Return the codes of `shape` [..., K] that `pack` wrote; bytes beyond them are not read."""
    count = int(np.prod(shape, dtype=np.int64))
    width = shape[-1] if align_rows and count else count
    row_bytes = -(-width * fmt.bits // 8)
    row_count = count // width if width else 0
    octets = np.frombuffer(data, np.uint8, count=row_count * row_bytes)
    bits = np.unpackbits(octets.reshape(row_count, row_bytes), axis=-1, bitorder="little")
    bits = bits[:, : width * fmt.bits].reshape(count, fmt.bits)
    size = _code_type(fmt).itemsize
    packed = np.packbits(bits, axis=-1, bitorder="little")
    whole = np.zeros((count, size), np.uint8)
    whole[:, : packed.shape[-1]] = packed
    return whole.view(_code_type(fmt).newbyteorder("<")).astype(_code_type(fmt)).reshape(shape)


def _code_type(fmt: Format) -> np.dtype[np.unsignedinteger]:
    return np.dtype(np.uint8 if fmt.bits <= 8 else np.uint16 if fmt.bits <= 16 else np.uint32)


def _refuse_nan(x: NDArray[np.float64], fmt: Format) -> None:
    if np.isnan(x).any():
        raise UserError(f"{fmt.name} holds no NaN, and element {int(np.isnan(x).argmax())} is one")


def _float32_bits(x: NDArray) -> NDArray[np.uint32]:
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = x.astype(np.float32)  # IEEE 754: one rounding to nearest, ties to even
    return np.where(np.isnan(narrow), np.uint32(0x7FC00000), narrow.view(np.uint32))


def _encode_float(x: NDArray[np.float64], fmt: Format, saturate: bool) -> NDArray[np.int64]:
    """Scale by an exact power of two to units of the last place, round there, add the exponent."""
    if not fmt.has_nan:
        _refuse_nan(x, fmt)
    finite = np.isfinite(x)
    size = np.abs(np.where(finite, x, 0.0))
    exponent = np.maximum((size.view(np.int64) >> 52) - 1023, fmt.smallest_exponent)
    power = ((fmt.mantissa_bits - exponent + 1023) << 52).view(np.float64)
    units = np.rint(size * power).astype(np.int64)
    # A subnormal's units fall short of 2**mantissa_bits and leave exponent field 0.
    codes = ((exponent + fmt.bias) << fmt.mantissa_bits) + units - (1 << fmt.mantissa_bits)
    top = _largest_code(fmt)
    over = (codes > top) | np.isinf(x)
    nan = _nan_code(fmt)
    beyond = top if saturate or not fmt.has_nan else top + 1  # infinity, or e4m3fn's NaN
    codes = np.where(over, beyond, codes)
    signed = codes | (np.signbit(x).astype(np.int64) << (fmt.bits - 1))
    return np.where(np.isnan(x) | ((codes == nan) & fmt.has_nan), nan, signed)


def _largest_code(fmt: Format) -> int:
    everything = 2 ** (fmt.bits - 1) - 1
    return everything - (2**fmt.mantissa_bits if fmt.has_inf else int(fmt.has_nan))


def _nan_code(fmt: Format) -> int:
    everything = 2 ** (fmt.bits - 1) - 1
    return everything - (2 ** (fmt.mantissa_bits - 1) - 1 if fmt.has_inf else 0)


@cache
def _float_values(fmt: Format) -> NDArray[np.float64]:
    """The value of every code of a float of at most 16 bits, or of the power format."""
    codes = np.arange(2**fmt.bits, dtype=np.int64)
    if fmt.kind is Kind.POWER:
        return np.where(codes == codes[-1], np.nan, np.ldexp(1.0, codes - fmt.bias))
    field = (codes >> fmt.mantissa_bits) & (2**fmt.exponent_bits - 1)
    mantissa = codes & (2**fmt.mantissa_bits - 1)
    units = mantissa + np.where(field > 0, 2**fmt.mantissa_bits, 0)
    exponent = np.maximum(field, 1) - fmt.bias - fmt.mantissa_bits
    values = np.ldexp(units.astype(np.float64), exponent)
    magnitude = codes & (2 ** (fmt.bits - 1) - 1)
    beyond = magnitude > _largest_code(fmt)
    infinite = beyond & (mantissa == 0) & fmt.has_inf
    values = np.where(infinite, np.inf, np.where(beyond, np.nan, values))
    values = np.where(codes >> (fmt.bits - 1), -values, values)
    values.setflags(write=False)
    return values


def _encode_power(x: NDArray[np.float64], fmt: Format) -> NDArray[np.int64]:
    fraction, exponent = np.frexp(np.where(np.isfinite(x), x, -1.0))  # fraction in [1/2, 1)
    codes = exponent - 1 + fmt.bias + (fraction >= 0.75)
    last = 2**fmt.bits - 1
    codes = np.clip(codes.astype(np.int64), 0, last)
    return np.where((fraction > 0) & np.isfinite(x), codes, last)


def _encode_integer(x: NDArray[np.float64], fmt: Format) -> NDArray[np.int64]:
    low = -(2 ** (fmt.bits - 1)) if fmt.signed else 0
    return np.clip(np.rint(x), low, fmt.largest).astype(np.int64)


def _encode_ternary(x: NDArray[np.float64], fmt: Format) -> NDArray[np.int64]:
    return np.clip(np.rint(x), -1, 1).astype(np.int64)


def _encode_bipolar(x: NDArray[np.float64], fmt: Format) -> NDArray[np.int64]:
    """Round the unsigned code u of v = 2u - (2**bits - 1); an even v is a tie, to even u."""
    last = 2**fmt.bits - 1
    return np.rint(np.clip((np.clip(x, -last, last) + last) / 2, 0, last)).astype(np.int64)


def _encode_shift(x: NDArray[np.float64], fmt: Format) -> NDArray[np.int64]:
    """Round to the nearest power; halfway to the even exponent, zero to 1 with zero's sign."""
    half = 2 ** (fmt.bits - 1)
    fraction, exponent = np.frexp(np.clip(np.abs(x), 1.0, fmt.largest))
    power = exponent - 1
    up = (fraction > 0.75) | ((fraction == 0.75) & (power % 2 == 1))
    return power + up + np.where(np.signbit(x), half, 0)


_ENCODE_INTEGER = {
    Kind.INTEGER: _encode_integer,
    Kind.TERNARY: _encode_ternary,
    Kind.BIPOLAR: _encode_bipolar,
    Kind.SHIFT: _encode_shift,
}
