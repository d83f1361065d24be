"""The lookup-table product: unsigned weights become table codes once, then sums are looked up.

Four activations make a table of 8 sums (golden.vector.table_precompute); the other 8 of their 16
sign patterns are the negatives. A weight of B bits is B planes of signs: q' = 2q - (2**B - 1) is
the sum over bits b of +-2**b. Method: LUT Tensor Core, arXiv 2408.06003, equations 5 and 6.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.exact import matmul
from machine.errors import must_be

__all__ = ["lookup", "reinterpret", "remap"]

NEGATE = 8  # the bit of a code that says: subtract the entry


def reinterpret(scale: ArrayLike, zero: ArrayLike, bits: int) -> tuple[NDArray, NDArray]:
    """Return scale' and zero' such that scale' * (q' - zero') = scale * (q - zero), exactly."""
    return np.asarray(scale) / 2, 2 * np.asarray(zero) + 1 - 2**bits


def remap(weights: ArrayLike, bits: int) -> NDArray[np.uint8]:
    """Return the table codes [bits, N, ceil(K / 4)] of unsigned `weights` [N, K] of `bits` bits.

    Code bits 0-2 are the table entry, bit 3 negates it: where the fourth weight's bit is 1, the
    other three are inverted here so that no hardware has to. Weights beyond K count as 0 and
    meet activations of 0. Raises `UserError` for a weight out of range.
    """
    w = np.asarray(weights, np.int64)
    wrong = (w < 0) | (w >= 2**bits)
    if wrong.any():
        raise must_be("a weight to remap", f"from 0 to {2**bits - 1}", int(w[wrong][0]))
    padded = np.pad(w, ((0, 0), (0, -w.shape[1] % 4)))
    groups = padded.reshape(len(w), padded.shape[1] // 4, 4)
    planes = groups >> np.arange(bits)[:, None, None, None] & 1
    first_three = planes[..., :3] @ np.array([1, 2, 4])
    fourth = planes[..., 3]
    return (np.where(fourth, 7 - first_three, first_three) + NEGATE * fourth).astype(np.uint8)


def lookup(tables: ArrayLike, codes: ArrayLike) -> NDArray[np.int64]:
    """Return the sum over planes b and groups of +-2**b * the entry that each code names.

    `tables` int [..., M, K / 4, 8], `codes` [bits, N, K / 4]; int64 [..., M, N], which is the
    activations times the transposed q'. The entries are gathered through a matrix of signed
    powers of two, so the sum is one exact integer product.
    """
    t, c = np.asarray(tables), np.asarray(codes, np.int64)
    bits, rows, groups = c.shape
    chosen = np.zeros((rows, groups, 8), np.int64)
    row, group = np.ogrid[:rows, :groups]
    for b in range(bits):
        sign = np.where(c[b] & NEGATE, -1, 1)
        chosen[row, group, c[b] & 7] += sign << b
    return matmul(t.reshape(*t.shape[:-2], groups * 8), chosen.reshape(rows, groups * 8).T)
