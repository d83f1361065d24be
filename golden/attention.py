"""Softmax, and attention in pieces: each piece leaves (maximum, weight sum, weighted values).

The pieces merge in any grouping (arXiv 2405.10480), which is how a long row is cut over tiles,
banks or channels. All arithmetic is float32, one rounding an operation.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.approx import exp
from golden.floats import add, divide, matmul, multiply, reduce_max, reduce_sum
from machine.vector import Mask, ReductionOrder

__all__ = ["State", "attend", "finish", "merge", "softmax", "visible_keys"]

Floats = NDArray[np.float32]
NOTHING = np.float32(-np.inf)


class State(NamedTuple):
    """What attention over some of the keys leaves behind, for the rest to be merged in."""

    maximum: Floats  # [..., Q] largest score seen; minus infinity if none was
    total: Floats  # [..., Q] sum of exp(score - maximum)
    output: Floats  # [..., Q, D] sum of exp(score - maximum) * value


def visible_keys(mask: Mask, queries: int, keys: int, *, position_base: int = 0,
                 window: int = 0) -> NDArray[np.bool_]:
    """Return bool [queries, keys]: query i stands at `position_base` + i, key j at j.

    CAUSAL sees keys up to the query's own position, WINDOW only the last `window` of those.
    """
    distance = position_base + np.arange(queries)[:, None] - np.arange(keys)
    match mask:
        case Mask.NONE:
            return np.full((queries, keys), True)
        case Mask.CAUSAL:
            return distance >= 0
        case Mask.WINDOW:
            return (distance >= 0) & (distance < window)
    raise ValueError(f"mask must be a Mask, not {mask!r}")


def _weights(scores: ArrayLike, visible: ArrayLike | None, scale: float) -> tuple[Floats, Floats]:
    """Return the maximum [..., Q] and exp(score - maximum) [..., Q, K]; a hidden key weighs 0."""
    scaled = multiply(scores, np.float32(scale))
    if visible is not None:
        scaled = np.where(visible, scaled, NOTHING)
    maximum = reduce_max(scaled)
    return maximum, exp(add(scaled, -_finite(maximum)[..., None]))


def _finite(maximum: Floats) -> Floats:
    """The maximum, or 0 where no key was visible."""
    return np.where(maximum == NOTHING, np.float32(0), maximum)


def _inverse(total: Floats) -> Floats:
    """One over the sum of weights; 0 where no key was visible."""
    return np.where(total == 0, np.float32(0), divide(np.float32(1), total))


def softmax(scores: ArrayLike, *, visible: ArrayLike | None = None, scale: float = 1.0,
            order: ReductionOrder = ReductionOrder.TREE, lanes: int = 128) -> Floats:
    """Return the softmax of `scale` * `scores` [..., K] over the last axis.

    Scaled, less their maximum, through `exp`, added in `order`, times the inverse of the sum.
    `visible` (bool, broadcast to `scores`) hides keys; a row that sees none is all 0.
    """
    _, weights = _weights(scores, visible, scale)
    return multiply(weights, _inverse(reduce_sum(weights, order, lanes))[..., None])


def attend(scores: ArrayLike, values: ArrayLike, *, visible: ArrayLike | None = None,
           scale: float = 1.0, order: ReductionOrder = ReductionOrder.TREE,
           lanes: int = 128) -> State:
    """Return the state of `scores` [..., Q, K] over `values` [..., K, D].

    The values are weighted and added in order of k, each product and sum rounded.
    """
    maximum, weights = _weights(scores, visible, scale)
    return State(maximum, reduce_sum(weights, order, lanes), matmul(weights, values))


def merge(a: State, b: State) -> State:
    """Return the state of the keys of `a` and `b` together; the order of the two does not show."""
    maximum = reduce_max(np.stack([a.maximum, b.maximum], axis=-1))
    shift = _finite(maximum)
    factor_a, factor_b = exp(add(a.maximum, -shift)), exp(add(b.maximum, -shift))
    total = add(multiply(a.total, factor_a), multiply(b.total, factor_b))
    output = add(multiply(a.output, factor_a[..., None]), multiply(b.output, factor_b[..., None]))
    return State(maximum, total, output)


def finish(state: State) -> Floats:
    """Return the attention output [..., Q, D]: the weighted values over the sum of weights."""
    return multiply(state.output, _inverse(state.total)[..., None])
