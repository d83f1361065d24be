"""The lookup-table product: weights become table codes once, then sums are looked up.

K activations make a table of 2**(K-1) sums (four make 8, golden.vector.table_precompute); the other
sign patterns are the negatives. A weight of B bits is B planes of signs: q' = 2q - (2**B - 1) is
the sum over bits b of +-2**b. Method: LUT Tensor Core, arXiv 2408.06003, equations 5 and 6.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.exact import matmul
from golden.floats import add, from_integer, multiply
from golden.vector import quantise_rows
from machine.errors import must_be
from machine.formats import FORMATS, Format
from machine.vector import ScaleRule

__all__ = [
    "groups", "lookup", "lookup_float", "lookup_scaled", "planes", "quantise_tables",
    "reinterpret", "remap", "subset_sums", "tables",
]


def reinterpret(scale: ArrayLike, zero: ArrayLike, bits: int) -> tuple[NDArray, NDArray]:
    """Return scale' and zero' such that scale' * (q' - zero') = scale * (q - zero), exactly."""
    return np.asarray(scale) / 2, 2 * np.asarray(zero) + 1 - 2**bits


def planes(weights: ArrayLike, bits: int, k: int = 4) -> NDArray[np.uint8]:
    """Return the planes [bits, N, ceil(K / k)] of unsigned `weights` [N, K] of `bits` bits.

    Bit j of an entry is the plane's bit of weight j of a group of `k`. Weights beyond K count as 0.
    Raises `UserError` for a weight out of range.
    """
    w = np.asarray(weights, np.int64)
    wrong = (w < 0) | (w >= 2**bits)
    if wrong.any():
        raise must_be("a weight to remap", f"from 0 to {2**bits - 1}", int(w[wrong][0]))
    padded = np.pad(w, ((0, 0), (0, -w.shape[1] % k)))
    split = padded.reshape(len(w), -1, k) >> np.arange(bits)[:, None, None, None] & 1
    return (split @ (1 << np.arange(k))).astype(np.uint8)


def remap(weights: ArrayLike, bits: int, k: int = 4) -> NDArray[np.uint8]:
    """Return the table codes [bits, N, ceil(K / k)] of unsigned `weights` [N, K] of `bits` bits.

    The low k - 1 bits of a code are the table entry, the bit above negates it: where the last
    weight's bit is 1, the others are inverted here so that no hardware has to. Weights beyond K
    count as 0 and meet activations of 0. Raises `UserError` for a weight out of range.
    """
    split = planes(weights, bits, k)
    last = 1 << k - 1
    return np.where(split & last, split ^ last - 1, split)


def tables(a: ArrayLike, k: int = 4) -> NDArray[np.int64]:
    """Return the half tables [..., ceil(K / k), 2**(k-1)] of integers `a` [..., K].

    Entry j of (a0, ..., a_k-1) is -a_k-1 plus the sum of +-a_i, minus where bit i of j is 0. The
    last activations are filled up with zeros.
    """
    entries = np.arange(2 ** (k - 1))[:, None] >> np.arange(k) & 1  # bit k - 1 is 0: minus
    return groups(a, k) @ (2 * entries - 1).T


def subset_sums(a: ArrayLike, k: int = 4) -> NDArray[np.int64]:
    """Return the whole tables [..., ceil(K / k), 2**k] of integers `a` [..., K].

    Entry j is the sum of the activations i of a group whose bit i of j is 1: what a lookup array
    without reinterpreted weights stores.
    """
    return groups(a, k) @ (np.arange(2**k)[:, None] >> np.arange(k) & 1).T


def groups(a: ArrayLike, k: int) -> NDArray[np.int64]:
    """Return integers `a` [..., K] as [..., ceil(K / k), k], filled up with zeros."""
    value = np.asarray(a, np.int64)
    padded = np.pad(value, [(0, 0)] * (value.ndim - 1) + [(0, -value.shape[-1] % k)])
    return padded.reshape(*value.shape[:-1], padded.shape[-1] // k, k)


def lookup(tables: ArrayLike, codes: ArrayLike) -> NDArray[np.int64]:
    """Return the sum over planes b and groups of +-2**b * the entry that each code names.

    `tables` int [..., M, K / k, 2**(k-1)], `codes` [bits, N, K / k]; int64 [..., M, N], which is
    the activations times the transposed q'. The entries are gathered through a matrix of signed
    powers of two, so the sum is one exact integer product.
    """
    t, c = np.asarray(tables), np.asarray(codes, np.int64)
    bits, rows, count = c.shape
    entries = t.shape[-1]
    chosen = np.zeros((rows, count, entries), np.int64)
    row, group = np.ogrid[:rows, :count]
    for b in range(bits):
        sign = np.where(c[b] & entries, -1, 1)
        chosen[row, group, c[b] & entries - 1] += sign << b
    return matmul(t.reshape(*t.shape[:-2], count * entries),
                  chosen.reshape(rows, count * entries).T)


def quantise_tables(
    tables: ArrayLike, rule: ScaleRule, block: int, fmt: Format = FORMATS["int8"]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return codes of `tables` [..., G, E] in `fmt`, and float32 scales [..., G / tables a scale].

    `rule` TABLE gives every table its own scale, as LUT Tensor Core does, and `block` must be 1;
    BLOCK one to `block` tables side by side, as T-MAC does. Scale, ties and the all-zero table are
    those of `golden.vector.quantise_rows` on the entries that share the scale. Entries must be
    exact in float32. Raises `UserError` for another rule or a block that does not divide.
    """
    value = np.asarray(tables)
    count, entries = value.shape[-2:]
    if rule not in (ScaleRule.TABLE, ScaleRule.BLOCK):
        raise must_be("scale rule of tables", "table or block", rule.name.lower())
    if rule is ScaleRule.TABLE and block != 1:
        raise must_be("block", "1 for a scale a table", block)
    if block < 1 or count % block:
        raise must_be("block", f"a divisor of {count} tables", block)
    rows = value.reshape(*value.shape[:-2], count // block, block * entries)
    codes, scales = quantise_rows(rows.astype(np.float32), fmt)
    return codes.reshape(value.shape), scales


def lookup_float(
    tables: ArrayLike, codes: ArrayLike, fmt: Format, start: ArrayLike | None = None
) -> NDArray:
    """Return what `codes` [bits, N, G] find in float `tables` [M, G, E], added in `fmt`: [M, N].

    From `start` [M, N] or +0 on, table after table, and of a table plane after plane, lowest first:
    the entry times +-2**b, exactly, is added and the sum rounded once. `fmt` is float16 or float32;
    entries have at most float16's significand and exponents.
    """
    t, c = np.asarray(tables, np.float64), np.asarray(codes, np.int64)
    entries = t.shape[-1]
    zeros = np.zeros((len(t), c.shape[1]))
    total = zeros if start is None else np.asarray(start, np.float64)
    for group in range(t.shape[1]):
        for b, code in enumerate(c[..., group]):
            found = t[:, group][:, code & entries - 1] * 2.0**b
            term = np.where(code & entries, -found, found)
            total = np.asarray(add(total, term, fmt), np.float64)
    return total


def lookup_scaled(tables: ArrayLike, scales: ArrayLike, codes: ArrayLike) -> NDArray[np.float32]:
    """Return what `codes` [bits, N, G] find in quantised `tables` [..., M, G, E], float32.

    The tables under one scale of `scales` [..., M, blocks] are added as integers; that sum is
    rounded to float32, times the scale rounded, and added rounded, block after block from +0.
    """
    t, c, s = np.asarray(tables), np.asarray(codes), np.asarray(scales, np.float32)
    block = t.shape[-2] // s.shape[-1]
    total = np.zeros((*t.shape[:-2], c.shape[1]), np.float32)
    for number in range(s.shape[-1]):
        part = slice(number * block, (number + 1) * block)
        whole = from_integer(lookup(t[..., part, :], c[..., part]))
        total = add(total, multiply(whole, s[..., number, None]))
    return total
