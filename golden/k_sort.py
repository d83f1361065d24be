"""K-sort: key channels ordered by size, so that a block of a cache of keys holds like with like.

A block shares one exponent, which its largest channel sets. Sorting the rows of the key projection
puts the large channels into the same blocks; with the rows of the query projection in the same
order, no score changes (arXiv 2403.20137). Nothing is done at run time.
"""

import numpy as np
from numpy.typing import NDArray

from machine.errors import must_be

__all__ = ["k_sort", "key_order"]


def key_order(keys: NDArray, head_dim: int, *, rope: bool) -> NDArray[np.int64]:
    """Return the order of the channels of each head, int64 [heads, head_dim], the largest first.

    `keys` [heads * head_dim, K] is the key projection; a channel is as large as the norm of its
    row; of equals the first comes first. With `rope` the channels i and i + head_dim / 2, which
    are rotated together, are as large as both and stay half a head apart; the rotation of a pair
    moves with it, so pair p must be turned by the step of pair ``order[head, p]``.
    """
    heads, rest = divmod(len(keys), head_dim)
    if rest or not heads:
        raise must_be("rows of the key projection", f"a multiple of {head_dim}", len(keys))
    if rope and head_dim % 2:
        raise must_be("head_dim", "even for pairs", head_dim)
    rows = np.asarray(keys, np.float64)
    # accumulate adds in order of K on every processor, as np.sum does not.
    size = np.add.accumulate(rows * rows, axis=-1)[:, -1].reshape(heads, head_dim)
    if not rope:
        return np.argsort(-size, axis=-1, kind="stable")
    half = head_dim // 2
    pairs = np.argsort(-(size[:, :half] + size[:, half:]), axis=-1, kind="stable")
    return np.concatenate([pairs, pairs + half], axis=-1)


def k_sort(projection: NDArray, keys: NDArray, head_dim: int, *, rope: bool) -> NDArray:
    """Return the rows of `projection` [heads * head_dim, ...] in the order of their key heads.

    `projection` is the key projection `keys` [key heads * head_dim, K] itself, the query projection
    of as many heads or a multiple (head h reads key head h * key heads // heads), or the bias of
    either.
    """
    order = key_order(keys, head_dim, rope=rope)
    heads, rest = divmod(len(projection), head_dim)
    if rest or not heads or heads % len(order):
        raise must_be("rows of a projection under k_sort",
                      f"a multiple of {len(order) * head_dim}", len(projection))
    rows = projection.reshape(heads, head_dim, *projection.shape[1:])
    order = np.repeat(order, heads // len(order), axis=0)
    sorted_rows = [head[channels] for head, channels in zip(rows, order, strict=True)]
    return np.concatenate(sorted_rows)
