"""The sums of a product of floats in the order that its instruction names.

Shapes are [..., M, K] by [..., K, N]; leading axes are a batch and broadcast.
"""

import numpy as np

from golden.matmul import accumulate_float
from machine.formats import Format
from machine.opcodes import KOrder

__all__ = ["accumulate_in_order"]


def accumulate_in_order(
    order: KOrder,
    size: int,
    acc: np.ndarray,
    a: np.ndarray,
    w: np.ndarray,
    a_format: Format,
    w_format: Format,
    *,
    sets: bool,
) -> np.ndarray:
    """Return what a MATMUL leaves in `acc` [..., M, N], float32 or float16.

    Products are exact, each addition rounds once. SEQUENTIAL: to `acc`, or to +0 if it `sets`, in
    ascending k. DESCENDING: tiles of `size` products in ascending order, each added up from +0 with
    its last k first; INTERLEAVED: `size` partial sums from +0, product k to number k mod `size` in
    ascending k, then ((p0 + p1) + p2) ... A tile, or the sum of the partial sums, is added to the
    accumulator; the first one replaces it if it `sets`.
    """
    zero = np.zeros(acc.shape, acc.dtype)

    def summed(part: slice) -> np.ndarray:
        return accumulate_float(zero, a[..., part], w[..., part, :], a_format, w_format)

    depth = a.shape[-1]
    match order:
        case KOrder.SEQUENTIAL:
            return accumulate_float(zero if sets else acc, a, w, a_format, w_format)
        case KOrder.INTERLEAVED:
            parts = [_added([summed(slice(first, depth, size)) for first in range(size)])]
        case KOrder.DESCENDING:
            parts = [summed(slice(first + size - 1, first - 1 if first else None, -1))
                     for first in range(0, depth, size)]
    return _added(parts if sets else [acc, *parts])


def _added(parts: list[np.ndarray]) -> np.ndarray:
    """Return the sum of `parts` from the first to the last, each addition rounded once."""
    total = parts[0]
    with np.errstate(over="ignore", invalid="ignore"):
        for part in parts[1:]:
            total = total + part
    return total
