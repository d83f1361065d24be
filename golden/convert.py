"""Values to codes and back: what a unit reads from a tile, and what it writes into one.

Values are numpy arrays that hold every number of a format exactly: integers as integers, float16
and float32 as themselves, any other float as float32.
"""

import numpy as np

from golden import formats
from machine.errors import UserError, must_be
from machine.formats import Format, Kind
from machine.opcodes import Rounding

__all__ = ["NATIVE", "code_dtype", "codes_of", "values_of"]

# Formats whose codes are the numbers of a numpy type.
NATIVE = {
    name: np.dtype(name).newbyteorder("<")
    for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32")
}


def code_dtype(bits: int) -> np.dtype:
    """Return the smallest unsigned type that holds a code of `bits` bits (1 to 32)."""
    return np.dtype("<u1" if bits <= 8 else "<u2" if bits <= 16 else "<u4")


def values_of(codes: np.ndarray, fmt: Format) -> np.ndarray:
    """Return the exact values of `codes` [...]: int64, float16, or float32 for any other float."""
    if fmt.name in NATIVE:
        return codes.view(NATIVE[fmt.name])
    if fmt.name == "bfloat16":
        return (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if fmt.kind in (Kind.FLOAT, Kind.POWER):
        return formats.decode(codes, fmt).astype(np.float32)
    return formats.integers(codes, fmt)


def codes_of(
    values: np.ndarray,
    fmt: Format,
    *,
    rounding: Rounding = Rounding.NEAREST_EVEN,
    saturate: bool = True,
) -> np.ndarray:
    """Return the codes of `values` [...] in element format `fmt`, rounded once.

    To an integer format: rounded by `rounding`, then clipped (`saturate`) or wrapped. To a float
    format: to nearest, ties to even; beyond its range, the largest finite value (`saturate`) or
    the format's own rule (``golden.formats``). Values of the format's own numpy type are kept
    bit for bit. Raises `UserError` for another rounding to a float and for NaN as an integer.
    """
    native = NATIVE.get(fmt.name)
    if native is not None and values.dtype == native:
        return np.ascontiguousarray(values).view(code_dtype(fmt.bits))
    if fmt.kind is not Kind.INTEGER:
        if rounding is not Rounding.NEAREST_EVEN and values.dtype.kind == "f":
            raise must_be(f"rounding to {fmt.name}", "nearest_even", rounding.name.lower())
        if fmt.name == "float16" and values.dtype == np.float32:
            return _float16_codes(values, saturate)
        return formats.encode(values, fmt, saturate=saturate)
    whole = _whole(values, fmt, rounding)
    if saturate:
        low = -(1 << (fmt.bits - 1)) if fmt.signed else 0
        whole = np.clip(whole, low, int(fmt.largest))
    return (whole.astype(np.int64) & ((1 << fmt.bits) - 1)).astype(code_dtype(fmt.bits))


def _float16_codes(values: np.ndarray, saturate: bool) -> np.ndarray:
    """Return the codes that ``formats.encode`` gives, by numpy's own conversion: IEEE 754's."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        narrow = values.astype(np.float16)
    if np.isfinite(narrow).all():
        return narrow.view(np.uint16)
    if saturate:
        largest = np.finfo(np.float16).max
        narrow = np.clip(narrow, -largest, largest)
    return np.where(np.isnan(narrow), np.uint16(0x7E00), narrow.view(np.uint16))


def _whole(values: np.ndarray, fmt: Format, rounding: Rounding) -> np.ndarray:
    """Return `values` rounded to integers, of their own type, clear of int64's limits."""
    if values.dtype.kind != "f":
        return values
    if np.isnan(values).any():
        raise UserError(f"{fmt.name} holds no NaN")
    round_off = {Rounding.NEAREST_EVEN: np.rint, Rounding.TOWARD_ZERO: np.trunc,
                 Rounding.FLOOR: np.floor}[rounding]
    return np.clip(round_off(values.astype(np.float64)), -(2.0**62), 2.0**62)
