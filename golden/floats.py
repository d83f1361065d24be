"""Floating-point arithmetic with one rounding per operation, in a stated order of addition.

Values are arrays that hold numbers of the format: float32 for float32, float64 for narrower ones.
float32 + - * / and square root are IEEE 754 operations of numpy. Narrower formats compute in
float64 and round once more: harmless, since 53 bits exceed twice the format's bits and two
(Figueroa, "When is double rounding innocuous?", 1995).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.formats import round_to
from machine.formats import FORMATS, Format
from machine.vector import ReductionOrder

__all__ = [
    "FLOAT32", "add", "divide", "dot", "from_integer", "matmul", "multiply", "reduce_max",
    "reduce_sum", "square_root", "to_integer",
]

FLOAT32 = FORMATS["float32"]


def _held(x: ArrayLike, fmt: Format) -> NDArray:
    """Round to `fmt`, held as float32 or float64."""
    if fmt.name == "float32":
        return np.asarray(x).astype(np.float32)
    return round_to(x, fmt)


def add(a: ArrayLike, b: ArrayLike, fmt: Format = FLOAT32) -> NDArray:
    """Return `a` + `b` [...], rounded once to `fmt`; both already of `fmt`."""
    with np.errstate(all="ignore"):
        return _held(_as(a, fmt) + _as(b, fmt), fmt)


def multiply(a: ArrayLike, b: ArrayLike, fmt: Format = FLOAT32) -> NDArray:
    """Return `a` * `b` [...], rounded once to `fmt`; both already of `fmt`."""
    with np.errstate(all="ignore"):
        return _held(_as(a, fmt) * _as(b, fmt), fmt)


def divide(a: ArrayLike, b: ArrayLike, fmt: Format = FLOAT32) -> NDArray:
    """Return `a` / `b` [...], rounded once to `fmt`; both already of `fmt`."""
    with np.errstate(all="ignore"):
        return _held(_as(a, fmt) / _as(b, fmt), fmt)


def square_root(a: ArrayLike, fmt: Format = FLOAT32) -> NDArray:
    """Return the square root of `a` [...], rounded once to `fmt`."""
    with np.errstate(all="ignore"):
        return _held(np.sqrt(_as(a, fmt)), fmt)


def _as(x: ArrayLike, fmt: Format) -> NDArray:
    return np.asarray(x, dtype=np.float32 if fmt.name == "float32" else np.float64)


def from_integer(x: ArrayLike, fmt: Format = FLOAT32) -> NDArray:
    """Return integers `x` [...] of at most 53 bits as `fmt`, rounded once."""
    return _held(np.asarray(x), fmt)


def to_integer(x: ArrayLike, bits: int) -> NDArray[np.int64]:
    """Return `x` [...] rounded to signed integers of `bits`, ties to even; out of range saturates.

    Raises `UserError` for NaN.
    """
    return round_to(x, FORMATS[f"int{bits}"]).astype(np.int64)


def reduce_sum(x: ArrayLike, order: ReductionOrder = ReductionOrder.TREE, lanes: int = 128,
               fmt: Format = FLOAT32) -> NDArray:
    """Return the sum of `x` [..., K] over its last axis, every addition rounded to `fmt`.

    SEQUENTIAL starts from element 0 and adds 1, 2, ... TREE gives element j to lane j mod
    `lanes`, each lane adds its own in turn, then neighbours (0, 1), (2, 3), ... are added until
    one is left. A lane or a neighbour that does not exist counts as +0. An empty row sums to 0.
    """
    row = _as(x, fmt)
    if not row.shape[-1]:
        return np.zeros(row.shape[:-1], row.dtype)
    if order is ReductionOrder.SEQUENTIAL:
        return _in_turn(row, fmt)
    beats = -(-row.shape[-1] // lanes)
    partial = _padded(row, beats * lanes).reshape(*row.shape[:-1], beats, lanes)
    partial = _in_turn(np.swapaxes(partial, -1, -2), fmt)
    while partial.shape[-1] > 1:
        partial = _padded(partial, partial.shape[-1] + partial.shape[-1] % 2)
        partial = add(partial[..., 0::2], partial[..., 1::2], fmt)
    return partial[..., 0]


def _in_turn(x: NDArray, fmt: Format) -> NDArray:
    """Add the last axis, element 0 first."""
    if fmt.name == "float32":
        # accumulate writes every partial sum, so it cannot regroup them as np.sum does.
        with np.errstate(all="ignore"):
            return np.add.accumulate(x, axis=-1)[..., -1]
    total = x[..., 0]
    for index in range(1, x.shape[-1]):
        total = add(total, x[..., index], fmt)
    return total


def _padded(x: NDArray, width: int) -> NDArray:
    """Extend the last axis with +0 to `width`."""
    missing = width - x.shape[-1]
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)]) if missing else x


def reduce_max(x: ArrayLike) -> NDArray[np.float32]:
    """Return the largest of float32 `x` [..., K]; NaN if there is one; a zero maximum is +0.

    An empty row gives minus infinity.
    """
    row = np.asarray(x, np.float32)
    return np.max(row, axis=-1, initial=-np.inf) + np.float32(0)


def dot(a: ArrayLike, b: ArrayLike, order: ReductionOrder = ReductionOrder.SEQUENTIAL,
        lanes: int = 1, fmt: Format = FLOAT32) -> NDArray:
    """Return the dot product over the last axis of `a` and `b` [..., K], not fused.

    Each product is rounded to `fmt`, then `reduce_sum` adds them.
    """
    return reduce_sum(multiply(a, b, fmt), order, lanes, fmt)


def matmul(a: ArrayLike, b: ArrayLike, fmt: Format = FLOAT32, *,
           start: ArrayLike | None = None) -> NDArray:
    """Return `a` [..., M, K] @ `b` [..., K, N]: for k = 0, 1, ... total = total + a_k * b_k.

    Product and sum are each rounded to `fmt`. The total begins as the first product, or as
    `start` [..., M, N].
    """
    x, y = _as(a, fmt), _as(b, fmt)
    if start is None and not x.shape[-1]:
        shape = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        return np.zeros((*shape, x.shape[-2], y.shape[-1]), x.dtype)
    total = None if start is None else _as(start, fmt)
    for k in range(x.shape[-1]):
        product = multiply(x[..., :, k, None], y[..., k, None, :], fmt)
        total = product if total is None else add(total, product, fmt)
    assert total is not None
    return total
