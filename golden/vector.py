"""The operators of the vector unit: float32 in, float32 out, each step one rounding.

Rows are the last axis. A sum over a row follows `order` and `lanes` (golden.floats.reduce_sum).
Softmax and its mergeable form are in golden.attention.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden import approx
from golden.floats import (
    add,
    divide,
    from_integer,
    multiply,
    reduce_max,
    reduce_sum,
    square_root,
)
from golden.formats import round_to
from machine.errors import must_be
from machine.formats import FORMATS, Format
from machine.vector import ReductionOrder, VectorOp

__all__ = [
    "ELEMENTWISE", "argmax", "dequantise", "gather", "l2norm", "layernorm", "mean_pool", "mlgru",
    "quantise", "quantise_rows", "relu", "rmsnorm", "rope", "rope_table", "rotary_steps_of",
    "rotary_words", "scatter", "table_precompute", "topk",
]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
TREE = ReductionOrder.TREE
ZERO, ONE = np.float32(0), np.float32(1)
SMALLEST_ROW = np.float32(2.0**-100)  # a row nowhere larger than this quantises as zeros


def relu(x: ArrayLike) -> Floats:
    """Return the larger of `x` [...] and +0; NaN stays."""
    value = np.asarray(x, np.float32)
    return np.where(value <= 0, ZERO, value)


ELEMENTWISE: dict[VectorOp, Callable[[ArrayLike], Floats]] = {
    VectorOp.RELU: relu,
    VectorOp.SIGMOID: approx.sigmoid,
    VectorOp.SILU: approx.silu,
    VectorOp.GELU: approx.gelu,
    VectorOp.GELU_TANH: approx.gelu_tanh,
    VectorOp.EXP: approx.exp,
    VectorOp.TANH: approx.tanh,
}


def _mean(x: Floats, order: ReductionOrder, lanes: int) -> Floats:
    """The sum of `x` [..., K] times the rounded inverse of K, as [..., 1]."""
    inverse = divide(ONE, from_integer(x.shape[-1]))
    return multiply(reduce_sum(x, order, lanes), inverse)[..., None]


def layernorm(x: ArrayLike, gain: ArrayLike, bias: ArrayLike, *, epsilon: float,
              order: ReductionOrder = TREE, lanes: int = 128) -> Floats:
    """Return (x - mean) / sqrt(variance + epsilon) * gain + bias for rows `x` [..., K].

    The mean first, then the mean of the squared differences; one inverse root a row.
    """
    value = np.asarray(x, np.float32)
    centred = add(value, -_mean(value, order, lanes))
    variance = _mean(multiply(centred, centred), order, lanes)
    return add(multiply(multiply(centred, _inverse_root(variance, epsilon)), gain), bias)


def rmsnorm(x: ArrayLike, gain: ArrayLike, *, epsilon: float, order: ReductionOrder = TREE,
            lanes: int = 128) -> Floats:
    """Return x / sqrt(mean of squares + epsilon) * gain for rows `x` [..., K]."""
    value = np.asarray(x, np.float32)
    square = _mean(multiply(value, value), order, lanes)
    return multiply(multiply(value, _inverse_root(square, epsilon)), gain)


def _inverse_root(square: Floats, epsilon: float) -> Floats:
    return divide(ONE, square_root(add(square, np.float32(epsilon))))


def l2norm(x: ArrayLike, *, epsilon: float = 1e-12, order: ReductionOrder = TREE,
           lanes: int = 128) -> Floats:
    """Return x times the inverse of max(length, epsilon) for rows `x` [..., K]."""
    value = np.asarray(x, np.float32)
    length = square_root(reduce_sum(multiply(value, value), order, lanes))
    return multiply(value, divide(ONE, np.maximum(length, np.float32(epsilon)))[..., None])


def mean_pool(x: ArrayLike, visible: ArrayLike | None = None) -> Floats:
    """Return the mean over the rows of `x` [..., T, D] that `visible` [..., T] keeps: [..., D].

    Rows are added in order of t, then multiplied by the inverse of their number; no row gives 0.
    """
    value = np.asarray(x, np.float32)
    keep = np.broadcast_to(True if visible is None else np.asarray(visible, bool), value.shape[:-1])
    kept = np.swapaxes(np.where(keep[..., None], value, ZERO), -1, -2)
    count = np.maximum(keep.sum(axis=-1), 1)
    total = reduce_sum(kept, ReductionOrder.SEQUENTIAL)
    return multiply(total, divide(ONE, from_integer(count))[..., None])


def rope_table(positions: ArrayLike, steps: ArrayLike) -> tuple[Floats, Floats]:
    """Return cosine and sine [P, pairs] of integer `positions` [P] times phase `steps` [pairs].

    `steps` come from machine.approx.rotary_steps. The phase is exact modulo a turn.
    """
    phase = np.multiply.outer(np.asarray(positions, np.int64), np.asarray(steps, np.int64))
    return approx.cos_sin(phase)


def rotary_words(steps: ArrayLike) -> Integers:
    """Return phase `steps` [pairs] as ROPE's operand [2 * pairs]: low 24 bits, then high."""
    whole = np.asarray(steps, np.int64)
    return np.concatenate([whole & 0xFFFFFF, whole >> 24])


def rotary_steps_of(words: ArrayLike) -> Integers:
    """Return the phase steps [pairs] of ROPE's operand `words` [2 * pairs]."""
    low, high = np.split(np.asarray(words, np.int64), 2)
    return low + (high << 24)


def rope(x: ArrayLike, cosine: ArrayLike, sine: ArrayLike) -> Floats:
    """Rotate element i with element i + pairs of `x` [..., P, D] by `cosine`, `sine` [P, pairs].

    The halves layout of Hugging Face models; elements from 2 * pairs on pass unchanged.
    """
    value, c, s = (np.asarray(part, np.float32) for part in (x, cosine, sine))
    pairs = c.shape[-1]
    first, second = value[..., :pairs], value[..., pairs : 2 * pairs]
    turned = [add(multiply(first, c), -multiply(second, s)),
              add(multiply(second, c), multiply(first, s))]
    return np.concatenate([*turned, value[..., 2 * pairs :]], axis=-1)


def quantise_rows(x: ArrayLike, fmt: Format = FORMATS["int8"]) -> tuple[NDArray, Floats]:
    """Return numbers of `fmt` [..., K] and the float32 scale [...] of each row of `x` [..., K].

    The scale is the row's largest magnitude over the format's largest number. Elements are
    multiplied by the rounded largest number / largest magnitude, rounded to nearest, ties to even:
    int64 of an integer format, float32 of a float. A row nowhere above 2**-100 gives zeros and the
    scale 1. Raises `UserError` for a number that is not finite.
    """
    value, top = _finite(x), np.float32(fmt.largest)
    largest = reduce_max(np.abs(value))
    empty = largest <= SMALLEST_ROW
    factor = np.where(empty, ZERO, divide(top, np.where(empty, ONE, largest)))
    return _codes(value, factor, fmt), np.where(empty, ONE, divide(largest, top))


def quantise(x: ArrayLike, scale: ArrayLike, fmt: Format = FORMATS["int8"]) -> NDArray:
    """Return numbers of `fmt` [..., K] of `x` [..., K] under given row scales [...].

    Elements are multiplied by the rounded inverse of the scale, rounded to nearest, ties to even,
    and held to the symmetric range. Raises `UserError` for a number that is not finite.
    """
    return _codes(_finite(x), divide(ONE, scale), fmt)


def _finite(x: ArrayLike) -> Floats:
    value = np.asarray(x, np.float32)
    if not np.isfinite(value).all():
        raise must_be("a number to quantise", "finite", float(value[~np.isfinite(value)][0]))
    return value


def _codes(value: Floats, factor: Floats, fmt: Format) -> NDArray:
    scaled = multiply(value, np.asarray(factor)[..., None])
    low = -fmt.largest if fmt.signed else 0
    if fmt.is_float:
        return round_to(np.clip(scaled, low, fmt.largest), fmt).astype(np.float32)
    return np.clip(np.rint(scaled), low, fmt.largest).astype(np.int64)


def dequantise(total: ArrayLike, row_scale: ArrayLike, column_scale: ArrayLike,
               bias: ArrayLike | None = None) -> Floats:
    """Return integers `total` [..., M, N] as float32: times row scale [..., M], column scale [N].

    The integer is rounded to float32 first, then the two products in that order, then the bias.
    """
    value = multiply(from_integer(total), np.asarray(row_scale, np.float32)[..., None])
    value = multiply(value, column_scale)
    return value if bias is None else add(value, bias)


def gather(table: ArrayLike, index: ArrayLike) -> NDArray:
    """Return the rows of `table` [R, ...] that `index` [...] names, unchanged.

    Raises `UserError` for an index outside the table.
    """
    rows, at = np.asarray(table), np.asarray(index, np.int64)
    _in_range(at, len(rows))
    return rows[at]


def scatter(x: ArrayLike, index: ArrayLike, into: ArrayLike) -> NDArray:
    """Return a copy of `into` [R, ...] with row `index`[i] replaced by row i of `x`; the last wins.

    Raises `UserError` for an index outside `into`.
    """
    result, at = np.array(into), np.asarray(index, np.int64)
    _in_range(at, len(result))
    for row, place in zip(np.asarray(x), at, strict=True):
        result[place] = row
    return result


def _in_range(index: Integers, rows: int) -> None:
    outside = (index < 0) | (index >= rows)
    if outside.any():
        raise must_be("index", f"from 0 to {rows - 1}", int(index[outside].flat[0]))


def argmax(x: ArrayLike) -> Integers:
    """Return the place of the largest of `x` [..., K]; the first of equals; NaN counts as least."""
    return topk(x, 1)[1][..., 0]


def topk(x: ArrayLike, count: int) -> tuple[Floats, Integers]:
    """Return the `count` largest of `x` [..., K] in falling order, and their places.

    Of equals the first comes first; zeros are equal; NaN counts as minus infinity.
    """
    value = np.asarray(x, np.float32)
    ranked = np.where(np.isnan(value), -np.inf, value)
    place = np.argsort(-ranked, axis=-1, kind="stable")[..., :count]
    return np.take_along_axis(value, place, axis=-1), place


def table_precompute(x: ArrayLike) -> NDArray:
    """Return the 8 lookup sums of every 4 activations: `x` [..., K] to [..., ceil(K / 4), 8].

    Entry j of (a0, a1, a2, a3) is -a3 + (+-a2) + (+-a1) + (+-a0), minus where bit k of j is 0
    (arXiv 2408.06003). Integers stay exact; floats are float32, added left to right as written.
    The last four are filled up with zeros.
    """
    value = np.asarray(x)
    missing = -value.shape[-1] % 4
    four = np.pad(value, [(0, 0)] * (value.ndim - 1) + [(0, missing)])
    four = four.reshape(*value.shape[:-1], four.shape[-1] // 4, 4)
    entries = np.arange(8)
    whole = np.issubdtype(value.dtype, np.integer)
    four = four.astype(np.int64 if whole else np.float32)
    table = -four[..., 3, None]
    for k in (2, 1, 0):
        term = np.where(entries >> k & 1, four[..., k, None], -four[..., k, None])
        table = table + term if whole else add(table, term)
    return table


def mlgru(x: ArrayLike, forget: ArrayLike, state: ArrayLike, lower_bound: float = 0.0) -> Floats:
    """Return the next state [..., D] of the MatMul-free recurrence (arXiv 2406.02528).

    f = bound + (1 - bound) * sigmoid(forget); state' = f * state + silu(x) * (1 - f), where `x`
    and `forget` are the two projections of the token.
    """
    bound = np.float32(lower_bound)
    gate = add(bound, multiply(add(ONE, -bound), approx.sigmoid(forget)))
    return add(multiply(gate, state), multiply(approx.silu(x), add(ONE, -gate)))


