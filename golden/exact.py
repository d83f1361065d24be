"""Integer arithmetic with nothing lost: matmul, and the rules that narrow a sum."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.formats import decode
from machine.formats import Format

__all__ = ["add_scaled", "kulisch_matmul", "matmul", "round_shift", "saturate", "wrap"]


_FLOAT32_STEP = -149  # exponent of the smallest positive float32


def matmul(a: ArrayLike, b: ArrayLike) -> NDArray:
    """Return the exact product of integers `a` [..., M, K] and `b` [..., K, N].

    int64, or Python integers (dtype object) where int64 could overflow.
    """
    x, y = np.asarray(a), np.asarray(b)
    bound = x.shape[-1] * _largest(x) * _largest(y)
    if bound < 2**53:  # every partial sum, in any order, is an integer float64 holds
        return (x.astype(np.float64) @ y.astype(np.float64)).astype(np.int64)
    if bound < 2**63:
        return x.astype(np.int64) @ y.astype(np.int64)
    return x.astype(object) @ y.astype(object)


def _largest(x: NDArray) -> int:
    return max(abs(int(x.min())), abs(int(x.max()))) if x.size else 0


def kulisch_matmul(a: ArrayLike, b: ArrayLike, fmt_a: Format, fmt_b: Format) -> NDArray:
    """Return `a` [..., M, K] @ `b` [..., K, N] of finite float codes, added exactly.

    The sum is a fixed-point integer in units of the smallest product. It comes back as float64
    [..., M, N] rounded to odd: rounding that once more, to a format of 32 bits or fewer, gives
    the exact sum rounded once.
    """
    whole = np.frompyfunc(int, 1, 1)
    units_a = whole(decode(a, fmt_a) / fmt_a.smallest)
    units_b = whole(decode(b, fmt_b) / fmt_b.smallest)
    total = np.frompyfunc(_round_to_odd, 1, 1)(matmul(units_a, units_b)).astype(np.float64)
    return total * (fmt_a.smallest * fmt_b.smallest)


def add_scaled(total: NDArray[np.float32], units: NDArray, exponent: NDArray) -> NDArray:
    """Return float32 `total` + Python integers `units` * 2**`exponent` [...], rounded once.

    `total` is finite. The sum is exact in units of the smaller exponent; a sum of 0 is +0.
    """
    step = np.minimum(exponent, _FLOAT32_STEP).astype(object)
    held = np.frompyfunc(int, 1, 1)(total.astype(np.float64) * 2.0**-_FLOAT32_STEP)
    shift = np.frompyfunc(lambda number, places: number << int(places), 2, 1)
    whole = shift(held, _FLOAT32_STEP - step) + shift(units, exponent - step)
    odd = np.frompyfunc(_round_to_odd, 1, 1)(whole).astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(odd, step.astype(np.int64)).astype(np.float32)


def _round_to_odd(number: int) -> float:
    size = abs(int(number))
    shift = max(0, size.bit_length() - 53)
    kept = size >> shift
    sticky = kept << shift != size
    return math.copysign(math.ldexp(kept | sticky, shift), number)


def wrap(x: ArrayLike, bits: int) -> NDArray[np.int64]:
    """Return integers `x` [...] modulo 2**bits, as signed numbers of `bits` <= 64 bits."""
    value = np.asarray(x)
    if bits > 62:
        value = value.astype(object)  # adding 2**62 to an int64 could overflow
    half = 2 ** (bits - 1)
    return ((value + half) % (2 * half) - half).astype(np.int64)


def saturate(x: ArrayLike, bits: int) -> NDArray:
    """Return integers `x` [...] held to the range of signed numbers of `bits` bits."""
    return np.clip(np.asarray(x), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def round_shift(x: ArrayLike, shift: int) -> NDArray:
    """Return integers `x` [...] over 2**shift, rounded to nearest, ties to even."""
    value = np.asarray(x)
    if shift == 0:
        return value
    floor = value >> shift
    rest = value - (floor << shift)
    half = 1 << (shift - 1)
    return floor + ((rest > half) | ((rest == half) & (floor % 2 == 1)))
